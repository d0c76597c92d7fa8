// Package podstart holds the start of each pod until its rules are in force.
//
// After a pod's sandbox has its addresses, and before any container of the pod starts, the
// container runtime calls its NRI plugins and waits for them. Plugin is one of them. It gives each
// sandbox to a Keeper, and lets the runtime go on when the Keeper returns. The Keeper has to return
// in time: a runtime drops a plugin that is late, and starts pods without it.
package podstart

import (
	"net/netip"
	"slices"

	"github.com/containerd/nri/pkg/api"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/policy"
)

// Sandbox is what a runtime tells about a pod that it runs. It is immutable.
type Sandbox struct {
	ID        string
	UID       types.UID // of the pod; for a static pod, that of its manifest
	Namespace string
	Name      string
	Labels    map[string]string
	Addrs     []netip.Addr // sorted
	Static    bool         // the kubelet has it from a file, not from the API
	NetNS     string       // the file of its network namespace; empty where the runtime tells none
}

// Key identifies the pod.
func (s *Sandbox) Key() types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
}

// addedLabels are the labels that the kubelet (newPodLabels in pkg/kubelet/kuberuntime/labels.go)
// and CRI-O add to a pod's own. A pod may have labels of its own that begin like these, and a
// policy may select the pod by them.
var addedLabels = []string{
	"io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.pod.uid", "io.kubernetes.container.name",
}

// parse reads a sandbox and reports whether it has something to guard. It has nothing where it has
// no address, or no network of its own, such as that of a hostNetwork pod.
func parse(pod *api.PodSandbox) (Sandbox, bool) {
	s := Sandbox{
		ID:        pod.GetId(),
		UID:       types.UID(pod.GetUid()),
		Namespace: pod.GetNamespace(),
		Name:      pod.GetName(),
		Labels:    map[string]string{},
		Static:    isStatic(pod.GetAnnotations()),
		NetNS:     networkOf(pod),
	}
	for key, value := range pod.GetLabels() {
		if !slices.Contains(addedLabels, key) {
			s.Labels[key] = value
		}
	}
	for _, ip := range pod.GetIps() {
		if addr, fault := policy.ParseAddr(ip); fault == "" {
			s.Addrs = append(s.Addrs, addr)
		}
	}
	slices.SortFunc(s.Addrs, netip.Addr.Compare)
	s.Addrs = slices.Compact(s.Addrs)
	return s, len(s.Addrs) > 0 && ownsNetwork(pod)
}

// sourceAnnotation names the source of a pod (pkg/kubelet/types): "api", "file" or "http". The
// kubelet gives it to the runtime with each pod.
const sourceAnnotation = "kubernetes.io/config.source"

func isStatic(annotations map[string]string) bool {
	source := annotations[sourceAnnotation]
	return source == "file" || source == "http"
}

// networkNamespace is the runtime's word for a network namespace (type of a namespace in the
// OCI runtime specification).
const networkNamespace = "network"

// ownsNetwork reports whether the sandbox has a network namespace. A runtime that
// tells no namespaces runs virtual machines, and these have one.
func ownsNetwork(pod *api.PodSandbox) bool {
	namespaces := pod.GetLinux().GetNamespaces()
	return len(namespaces) == 0 || slices.ContainsFunc(namespaces, func(n *api.LinuxNamespace) bool { return n.GetType() == networkNamespace })
}

// networkOf returns the file of the sandbox's network namespace.
func networkOf(pod *api.PodSandbox) string {
	for _, n := range pod.GetLinux().GetNamespaces() {
		if n.GetType() == networkNamespace {
			return n.GetPath()
		}
	}
	return ""
}

// living returns the sandboxes that still run. Until they are removed, the runtime also lists
// sandboxes that have ended, whose address may be another pod's. A sandbox counts as running if it
// has a running container. One without containers does if it is its pod's only sandbox.
func living(pods []*api.PodSandbox, containers []*api.Container) []*api.PodSandbox {
	inhabited := map[string]bool{}
	for _, c := range containers {
		switch c.GetState() {
		case api.ContainerState_CONTAINER_CREATED, api.ContainerState_CONTAINER_RUNNING, api.ContainerState_CONTAINER_PAUSED:
			inhabited[c.GetPodSandboxId()] = true
		case api.ContainerState_CONTAINER_STOPPED, api.ContainerState_CONTAINER_UNKNOWN:
		}
	}
	ofPod := map[string]int{}
	for _, pod := range pods {
		ofPod[pod.GetUid()]++
	}
	return slices.DeleteFunc(slices.Clone(pods), func(pod *api.PodSandbox) bool {
		return !inhabited[pod.GetId()] && ofPod[pod.GetUid()] != 1
	})
}

// parseAll returns the sandboxes that have something to guard.
func parseAll(pods []*api.PodSandbox) []Sandbox {
	var sandboxes []Sandbox
	for _, pod := range pods {
		if s, ok := parse(pod); ok {
			sandboxes = append(sandboxes, s)
		}
	}
	return sandboxes
}
