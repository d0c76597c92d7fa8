package node

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/host"
	"github.com/moat-dev/moat/dataplane/podstart"
	"github.com/moat-dev/moat/dataplane/policy"
)

// A pod that is deleted by force, or whose Node is deleted, is gone from the API while it
// still runs (kubernetes#110507). Such a pod is an orphan: no policy speaks of it any more,
// and it is closed in both directions until the runtime says that its sandbox has ended.
// Where no runtime tells, the network is asked: an address is closed as long as the node
// has a route to it alone, by the same link. A network that has one route for all of its
// pods can't tell, and closes nothing here. The pod-start guard closes what it covers
// anyway.

// orphans are the pods of this node that are gone from the API and still run. The model's
// lock guards it.
type orphans struct {
	// running are those that the runtime says run, by the ids of their sandboxes.
	running map[string]podstart.Sandbox

	// asked are the addresses about which the network is to be asked, routed those to which
	// it leads, each with its link.
	asked  map[netip.Addr]struct{}
	routed map[netip.Addr]int

	revision uint64 // grows with each change of what is closed
}

func newOrphans() orphans {
	return orphans{running: map[string]podstart.Sandbox{}, asked: map[netip.Addr]struct{}{}, routed: map[netip.Addr]int{}}
}

// keep closes a sandbox that runs without its pod.
func (o *orphans) keep(sandbox podstart.Sandbox) {
	o.running[sandbox.ID] = sandbox
	o.revision++
}

// release opens a sandbox that has ended, or whose pod is there again.
func (o *orphans) release(id string) {
	if _, known := o.running[id]; known {
		delete(o.running, id)
		o.revision++
	}
}

// reuse takes the addresses of a pod that the runtime starts: the network has handed them
// out again, so they are no orphan's.
func (o *orphans) reuse(addrs []netip.Addr) {
	isReused := func(addr netip.Addr) bool { return slices.Contains(addrs, addr) }
	for id, sandbox := range o.running {
		if !slices.ContainsFunc(sandbox.Addrs, isReused) {
			continue
		}
		sandbox.Addrs = slices.DeleteFunc(slices.Clone(sandbox.Addrs), isReused)
		o.running[id] = sandbox
		if len(sandbox.Addrs) == 0 {
			delete(o.running, id)
		}
		o.revision++
	}
}

// ask has the network asked about addresses whose pod is gone.
func (o *orphans) ask(addrs []netip.Addr) {
	for _, addr := range addrs {
		o.asked[addr] = struct{}{}
	}
}

// lost asks the network about all orphans: the runtime tells no more which of them run.
func (o *orphans) lost() {
	for id, sandbox := range o.running {
		o.ask(sandbox.Addrs)
		o.release(id)
	}
}

// revise takes the link to an address about which the network was asked, 0 for none. An
// address without one is gone, and so is one whose link is another one than before.
func (o *orphans) revise(addr netip.Addr, link int) {
	before, known := o.routed[addr]
	_, isNew := o.asked[addr]
	delete(o.asked, addr)
	switch {
	case known && link != before:
		delete(o.routed, addr)
		o.revision++
	case !known && isNew && link != 0:
		o.routed[addr] = link
		o.revision++
	}
}

// unsure returns the addresses about which the network is to be asked, now and again.
func (o *orphans) unsure() []netip.Addr {
	return slices.AppendSeq(slices.Collect(maps.Keys(o.asked)), maps.Keys(o.routed))
}

// endpoints returns the orphans as they are enforced, closed in both directions. Their
// names are no pod's: a pod of the same name may be there again.
func (o *orphans) endpoints(node string) []policy.Endpoint {
	var closed []policy.Endpoint
	add := func(namespace, name string, addrs ...netip.Addr) {
		pod := &policy.Pod{Namespace: namespace, Name: "gone/" + name, Node: node, Addrs: addrs, Subject: true}
		endpoint := policy.Endpoint{Pod: pod}
		for d := range endpoint.Isolating {
			endpoint.Isolating[d] = []*policy.Policy{policy.AllowsNothing}
		}
		closed = append(closed, endpoint)
	}
	for id, sandbox := range o.running {
		add(sandbox.Namespace, sandbox.Name+"/"+id, sandbox.Addrs...)
	}
	for addr := range o.routed {
		add("", addr.String(), addr)
	}
	slices.SortFunc(closed, func(a, b policy.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Pod.Namespace, b.Pod.Namespace), cmp.Compare(a.Pod.Name, b.Pod.Name))
	})
	return closed
}

// RuntimeLost notes that the runtime tells no more which pods run.
func (m *Model) RuntimeLost() {
	m.change(func() {
		m.sandboxes.connected = false
		m.sandboxes.orphans.lost()
	})
}

// AskNetwork finds out which addresses of pods that are gone the network still leads to.
// One that another pod of this node has is that pod's. Those in the guard's ranges are
// closed anyway.
func (m *Model) AskNetwork() error {
	m.mu.Lock()
	unsure := m.sandboxes.orphans.unsure()
	m.mu.Unlock()
	if len(unsure) == 0 {
		return nil
	}
	links, err := hostLinks(unsure)
	if err != nil {
		return err
	}
	m.change(func() {
		o := &m.sandboxes.orphans
		for _, addr := range unsure {
			here := func(pod *policy.Pod) bool { return pod.Node == m.node }
			if m.guard.on && m.guard.covers(addr) || slices.ContainsFunc(m.addresses.Showing(addr), here) {
				links[addr] = 0
			}
			o.revise(addr, links[addr])
		}
	})
	return nil
}

// hostLinks returns the link of each address to which the node has a route of its own,
// without a gateway.
func hostLinks(addrs []netip.Addr) (map[netip.Addr]int, error) {
	handle, err := host.OpenRoutes()
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	links := map[netip.Addr]int{}
	var errs []error
	for _, addr := range addrs {
		found, err := handle.RouteGetWithOptions(addr.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
		if err != nil {
			if !host.Unroutable(err) {
				errs = append(errs, fmt.Errorf("looking up the route to %s: %w", addr, err))
			}
			continue
		}
		for i := range found {
			route := &found[i]
			if route.Dst == nil || route.Type != unix.RTN_UNICAST || route.Gw != nil || route.Via != nil {
				continue
			}
			if ones, bits := route.Dst.Mask.Size(); ones == bits {
				links[addr] = route.LinkIndex
			}
		}
	}
	return links, errors.Join(errs...)
}
