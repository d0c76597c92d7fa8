package podstart

import (
	"fmt"
	"strings"
	"sync"

	"github.com/containerd/nri/pkg/api"
	"k8s.io/apimachinery/pkg/util/version"
)

// firstWithAddresses is the first version of each runtime that tells NRI plugins the
// addresses of pods: https://github.com/containerd/containerd/pull/10921 and
// https://github.com/cri-o/cri-o/pull/8731.
var firstWithAddresses = map[string]*version.Version{
	"containerd": version.MustParseGeneric("2.1"),
	"cri-o":      version.MustParseGeneric("1.32"),
}

// SilentError says that a runtime is connected but doesn't tell the addresses of pods, so the
// plugin can't hold their starts.
type SilentError struct {
	Runtime string // its name for itself
	Version string
}

func (e *SilentError) Error() string {
	text := fmt.Sprintf("the container runtime %s %s tells NRI plugins no addresses of pods", e.Runtime, e.Version)
	if first := firstWithAddresses[strings.ToLower(e.Runtime)]; first != nil {
		text += fmt.Sprintf("; %s does from %d.%d on", e.Runtime, first.Major(), first.Minor())
	}
	return text
}

// hearing finds out whether a runtime tells the addresses of pods. Until a pod with a network of
// its own was seen, it goes by the runtime's version. It is safe for concurrent use.
type hearing struct {
	mu      sync.Mutex
	runtime SilentError // its name and version
	told    bool        // a pod came with addresses
	missed  bool        // a pod came without
}

// configure takes the runtime's name and version.
func (h *hearing) configure(name, version string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.runtime = SilentError{name, version}
}

// hear takes a pod that has its network. It reports whether the answer has changed.
func (h *hearing) hear(pod *api.PodSandbox) (changed bool) {
	if !ownsNetwork(pod) {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.silent()
	if len(pod.GetIps()) > 0 {
		h.told = true
	} else {
		h.missed = true
	}
	return before != h.silent()
}

// answer returns a SilentError where the runtime tells no addresses. Otherwise it returns nil.
func (h *hearing) answer() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.silent() {
		return nil
	}
	silent := h.runtime
	return &silent
}

// silent reports whether the runtime tells no addresses. The caller holds the lock. Where some
// pods come with addresses, one without is no sign of that.
func (h *hearing) silent() bool {
	switch {
	case h.told:
		return false
	case h.missed:
		return true
	}
	first := firstWithAddresses[strings.ToLower(h.runtime.Runtime)]
	is, err := version.ParseGeneric(h.runtime.Version)
	return first != nil && err == nil && is.LessThan(first)
}
