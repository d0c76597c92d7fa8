package node

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/podstart"
)

// sandboxView is a sandbox as a view has it.
type sandboxView struct {
	podstart.Sandbox
	Exempt bool // also while nothing is known of its namespace
}

// spoofers says of the namespaces that are known whether their pods may send from any address.
type spoofers map[string]bool

// exempt reports whether a namespace's pods may send from any address, as far as is known.
func (s spoofers) exempt(namespace string) bool {
	may, known := s[namespace]
	return may || !known
}

// set takes a namespace's labels and reports whether that changes anything.
func (s spoofers) set(namespace string, labels labels.Set) bool {
	before := s.exempt(namespace)
	s[namespace] = labels[v1alpha1.AllowSpoofingLabel] == "true"
	return s[namespace] != before
}

// JudgesSources makes the model tell of every sandbox that comes or goes.
func (m *Model) JudgesSources() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sources = true
}

// sandboxesMoved has the rules follow the sandboxes. The model is locked.
func (m *Model) sandboxesMoved() {
	if m.sources {
		m.revision++
	}
}

// runsIn reports whether a sandbox of a namespace runs. The model is locked.
func (m *Model) runsIn(namespace string) bool {
	return slices.ContainsFunc(m.runningSandboxes(), func(s sandboxView) bool { return s.Namespace == namespace })
}

// runningSandboxes returns what runs on this node as the runtime says, in a fixed order. The
// model is locked.
func (m *Model) runningSandboxes() []sandboxView {
	if !m.sources {
		return nil
	}
	var running []sandboxView
	add := func(s podstart.Sandbox) { running = append(running, sandboxView{s, m.spoofers.exempt(s.Namespace)}) }
	for _, living := range m.sandboxes.living {
		add(living.Sandbox)
	}
	for _, orphan := range m.sandboxes.orphans.running {
		add(orphan)
	}
	slices.SortFunc(running, func(a, b sandboxView) int { return cmp.Compare(a.ID, b.ID) })
	return running
}
