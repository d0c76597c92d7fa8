package dataplane

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/ipset"
	"github.com/moat-dev/moat/dataplane/podstart"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// startGuard is the model's part of the pod-start guard. The model's lock guards it.
type startGuard struct {
	on       bool
	podCIDRs []netip.Prefix // of the agent's Node

	// foreign are the addresses of podCIDRs that pods of other nodes show, and none of
	// this one. They pass the guard.
	foreign map[netip.Addr]struct{}
}

// setNode takes the agent's Node. A Node that is made again under its name may have no
// podCIDRs for a while, or for good. Its pods run on, so the last ranges stay.
func (m *model) setNode(object *corev1.Node) {
	if cidrs := podCIDRsOf(object); object.Name == m.node && len(cidrs) > 0 {
		m.setRanges(object)
		m.guardRanges(cidrs)
	}
}

// guardRanges takes the ranges that are guarded.
func (m *model) guardRanges(cidrs []netip.Prefix) {
	m.change(func() {
		if !slices.Equal(cidrs, m.guard.podCIDRs) {
			m.guard.podCIDRs = cidrs
			m.findForeign()
			m.revision++
		}
	})
}

// nodeHandler follows the agent's Node. The pods of a Node that somebody deletes run
// on, and so the guard stays. saw gets each state of the Node.
func (m *model) nodeHandler(saw func(*corev1.Node)) toolscache.ResourceEventHandler {
	see := func(object any) {
		if node, ok := object.(*corev1.Node); ok {
			m.setNode(node)
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

// guardFromNowOn switches the guard on, and guardNoMore off.
func (m *model) guardFromNowOn() {
	m.change(func() {
		if !m.guard.on {
			m.guard.on = true
			m.revision++
		}
	})
}

func (m *model) guardNoMore() {
	m.change(func() {
		if m.guard.on {
			m.guard.on = false
			m.revision++
		}
	})
}

// guarded returns whether the guard is on and for which addresses.
func (m *model) guarded() (bool, []netip.Prefix) {
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

// startSandbox takes a sandbox whose containers don't run yet.
func (m *model) startSandbox(sandbox podstart.Sandbox) {
	m.change(func() {
		m.sandboxes.start(sandbox)
		m.put(sandbox.Key())
		m.sandboxesMoved()
	})
}

// stopSandbox takes a sandbox that has ended.
func (m *model) stopSandbox(sandbox podstart.Sandbox) {
	m.change(func() {
		m.sandboxes.stop(sandbox)
		m.put(sandbox.Key())
		m.sandboxesMoved()
	})
}

// replaceSandboxes takes all sandboxes that run.
func (m *model) replaceSandboxes(running []podstart.Sandbox) {
	m.change(func() {
		for _, key := range m.sandboxes.replace(running) {
			m.put(key)
		}
		m.sandboxesMoved()
	})
}

// sandboxState returns the present revision and whether the API has shown the
// sandbox's pod.
func (m *model) sandboxState(sandbox *podstart.Sandbox) (revision uint64, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.revision, m.sandboxes.knows(sandbox)
}

// localChanges are the changes of the sets of known pods, and of other nodes' pods.
type localChanges struct {
	remove []ipset.Change
	early  []ipset.Change // all but late
	late   []ipset.Change // isolated pods, in families that are guarded already
}

// takeLocal takes the changes of the sets of known pods, and of other nodes' pods, out
// of a plan: of the wanted sets, those that open. Where the guard doesn't stand yet, pods that are known enter before it
// comes: they are never interrupted. Later a pod enters once all of its rules are in
// force. One that nothing isolates has none to wait for, nor has a pod of another node.
func takeLocal(plan *ipset.Plan, want ipset.State, stands func(ruleset.Family) bool) localChanges {
	var local localChanges
	opens := func(c ipset.Change) bool { return want[c.Set].Entering == ruleset.Opens }
	for _, c := range plan.Delete {
		if opens(c) {
			local.remove = append(local.remove, c)
		}
	}
	for _, c := range plan.Add {
		family := want[c.Set].Family
		switch {
		case !opens(c):
		case stands(family) && isIsolated(want, family, c.Member):
			local.late = append(local.late, c)
		default:
			local.early = append(local.early, c)
		}
	}
	plan.Delete, plan.Add = slices.DeleteFunc(plan.Delete, opens), slices.DeleteFunc(plan.Add, opens)
	return local
}

// entering returns what enters the sets of known pods once rules are written: nothing in a
// family whose rules are not in force.
func (l *localChanges) entering(broken familyErrors) []ipset.Change {
	return slices.DeleteFunc(slices.Clone(l.late), func(c ipset.Change) bool {
		family, _ := setFamily(c.Set, compile.LocalSet)
		return broken[family] != nil
	})
}

// isIsolated reports whether an address is isolated in either direction.
func isIsolated(want ipset.State, family ruleset.Family, addr ruleset.Member) bool {
	for d := range policy.Directions {
		if _, is := want[compile.IsolatedSet(family, policy.Direction(d))].Members[addr]; is {
			return true
		}
	}
	return false
}

// setFamily returns the family of a set that has the name.
func setFamily(set string, name func(ruleset.Family) string) (ruleset.Family, bool) {
	for _, family := range ruleset.Families() {
		if set == name(family) {
			return family, true
		}
	}
	return 0, false
}

// guardStands reports whether the rules that a family has hold the guard. Where they can't
// be read, they may.
func (e *enforcer) guardStands(family ruleset.Family) bool {
	if e.broken[family] != nil {
		return true
	}
	_, stands := e.tables[family].Chains[compile.GuardChain]
	return stands
}

// findsGuard reports whether an agent before this one has left a guard in the
// kernel. Where that can't be read, it may have.
func (e *enforcer) findsGuard() bool {
	sets, err := ipset.Open(compile.SetPrefix)
	if err != nil {
		return true
	}
	defer sets.Close()
	have, err := sets.Read()
	return err != nil || slices.ContainsFunc(ruleset.Families(), func(family ruleset.Family) bool {
		_, found := have[compile.LocalSet(family)]
		return found
	})
}
