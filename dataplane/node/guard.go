package node

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/podstart"
	"github.com/moat-dev/moat/dataplane/policy"
)

// startGuard is the model's part of the pod-start guard. The model's lock guards it.
type startGuard struct {
	on       bool
	podCIDRs []netip.Prefix // of the agent's Node

	// foreign are the addresses of podCIDRs that pods of other nodes show, and none of
	// this one. They pass the guard.
	foreign map[netip.Addr]struct{}
}

// SetNode takes the agent's Node. A Node that is made again under its name may have no
// podCIDRs for a while, or for good. Its pods run on, so the last ranges stay.
func (m *Model) SetNode(object *corev1.Node) {
	if cidrs := podCIDRsOf(object); object.Name == m.node && len(cidrs) > 0 {
		m.SetRanges(object)
		m.GuardRanges(cidrs)
	}
}

// GuardRanges takes the ranges that are guarded.
func (m *Model) GuardRanges(cidrs []netip.Prefix) {
	m.change(func() {
		if !slices.Equal(cidrs, m.guard.podCIDRs) {
			m.guard.podCIDRs = cidrs
			m.findForeign()
			m.revision++
		}
	})
}

// NodeHandler follows the agent's Node. When a Node is deleted its pods
// run on, so the guard stays. saw gets each state of the Node.
func (m *Model) NodeHandler(saw func(*corev1.Node)) toolscache.ResourceEventHandler {
	see := func(object any) {
		if node, ok := object.(*corev1.Node); ok {
			m.SetNode(node)
			saw(node)
		}
	}
	return toolscache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, object any) { see(object) }}
}

func podCIDRsOf(node *corev1.Node) []netip.Prefix {
	var cidrs []netip.Prefix
	for _, text := range node.Spec.PodCIDRs {
		if cidr, err := netip.ParsePrefix(text); err == nil {
			cidrs = append(cidrs, cidr.Masked())
		}
	}
	return cidrs
}

// GuardFromNowOn switches the guard on, and guardNoMore off.
func (m *Model) GuardFromNowOn() {
	m.change(func() {
		if !m.guard.on {
			m.guard.on = true
			m.revision++
		}
	})
}

// GuardNoMore switches the guard off.
func (m *Model) GuardNoMore() {
	m.change(func() {
		if m.guard.on {
			m.guard.on = false
			m.revision++
		}
	})
}

// Guarded returns whether the guard is on and for which addresses.
func (m *Model) Guarded() (bool, []netip.Prefix) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.guard.on, m.guard.podCIDRs
}

// guardOf returns the guard for these pods of the node.
func (g *startGuard) guardOf(local []*policy.Pod) compile.Guard {
	if !g.on || len(g.podCIDRs) == 0 {
		return compile.Guard{}
	}
	known := compile.Guard{PodCIDRs: g.podCIDRs}
	for _, pod := range local {
		known.Local = append(known.Local, pod.Addrs...)
	}
	known.Foreign = slices.Collect(maps.Keys(g.foreign))
	return known
}

// StartSandbox takes a sandbox whose containers don't run yet.
func (m *Model) StartSandbox(sandbox podstart.Sandbox) {
	m.change(func() {
		m.sandboxes.start(sandbox)
		m.put(sandbox.Key())
		m.sandboxesMoved()
	})
}

// StopSandbox takes a sandbox that has ended.
func (m *Model) StopSandbox(sandbox podstart.Sandbox) {
	m.change(func() {
		m.sandboxes.stop(sandbox)
		m.put(sandbox.Key())
		m.sandboxesMoved()
	})
}

// ReplaceSandboxes takes all sandboxes that run.
func (m *Model) ReplaceSandboxes(running []podstart.Sandbox) {
	m.change(func() {
		for _, key := range m.sandboxes.replace(running) {
			m.put(key)
		}
		m.sandboxesMoved()
	})
}

// SandboxState returns the present revision and whether the API has shown the
// sandbox's pod.
func (m *Model) SandboxState(sandbox *podstart.Sandbox) (revision uint64, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.revision, m.sandboxes.knows(sandbox)
}
