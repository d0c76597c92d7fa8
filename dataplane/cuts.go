package dataplane

import (
	"maps"
	"net/netip"
	"time"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel/conntrack"
	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// lateFor is how long TCP stays cut after conntrack has forgotten the connection: a
// client that resets it makes the kernel forget it after ten seconds, while the
// server sends what wasn't acknowledged for 924 seconds or more (tcp_retries2 in
// the kernel's ip-sysctl documentation).
const lateFor = 16 * time.Minute

// lingerFor is how long the rules stay when nothing is cut any more: where pods come
// and go all the time, connections are cut all the time, and to change rules
// costs more than to change members of a set.
const lingerFor = time.Minute

// cuts are the classes of connections that are cut. Nil: the kernel's sets weren't
// read yet.
type cuts struct {
	classes  map[conntrack.Class]cut
	lastLook time.Time
	own      nodeAddresses
	last     map[string]time.Time // when a set held something last
}

// cut says of a class when a connection was last seen, and what forbids it.
type cut struct {
	seen time.Time
	by   causes
}

// adopt takes over what an agent before this one cut.
func adopt(sets ipset.State, ports conntrack.Ports, now time.Time) *cuts {
	c := &cuts{classes: map[conntrack.Class]cut{}, lastLook: now, last: map[string]time.Time{}}
	for _, family := range ruleset.Families() {
		for cause := range compile.CutCauses {
			for member := range sets[compile.CutSet(family, cause)].Members {
				class := conntrack.Class{
					Client: member.Prefix.Addr(), Server: member.Server,
					Protocol: policy.Protocol(member.Protocol), Port: member.Port, Answer: member.Port,
				}
				c.classes[class] = cut{seen: now} // follow says what forbids it
			}
		}
	}
	for _, picked := range pickedUp(c.classes, ports) {
		c.classes[picked] = cut{seen: now}
	}
	return c
}

// pickedUp returns the classes that the kernel had picked up, of which a set has two
// members: one for the connections as the kernel sees them, and one for those that
// the real client would open.
func pickedUp(classes map[conntrack.Class]cut, ports conntrack.Ports) []conntrack.Class {
	type ends struct {
		client, server netip.Addr
		protocol       policy.Protocol
	}
	served := map[ends][]uint16{}
	for class := range classes {
		between := ends{class.Client, class.Server, class.Protocol}
		served[between] = append(served[between], class.Port)
	}
	var picked []conntrack.Class
	for class := range classes {
		for _, from := range served[ends{class.Server, class.Client, class.Protocol}] {
			if class.Opener = ports.Opener(from, class.Port); class.Opener == conntrack.Second {
				class.From = from
				picked = append(picked, class)
			}
		}
	}
	return picked
}

// cutPickedUp returns the picked-up classes that are cut.
func (c *cuts) cutPickedUp() map[conntrack.Class]struct{} {
	picked := map[conntrack.Class]struct{}{}
	for class := range c.classes {
		if class.Opener != conntrack.First {
			picked[class] = struct{}{}
		}
	}
	return picked
}

// follow takes in what a look found, nil for none, and forgets what is over or
// allowed again. It returns how many connections are cut that weren't before.
func (c *cuts) follow(found *findings, m *node.Model, v *view, now time.Time) (flows int) {
	if found != nil {
		if found.own.all != nil {
			c.own = found.own
		}
		for class, n := range found.forbidden {
			if _, known := c.classes[class]; !known {
				flows += n
			}
			c.classes[class] = cut{seen: found.at}
		}
	}
	if len(c.classes) == 0 {
		return 0
	}
	lookup := newNodeLookup(m, v, c.own)
	m.Peers(func(p node.Peers) {
		lookup.peers = p
		for class, cut := range c.classes {
			// One look may miss an entry, when the kernel makes its table larger.
			over := found != nil && cut.seen.Before(c.lastLook) && (class.Protocol != policy.TCP || now.Sub(cut.seen) > lateFor)
			cut.by = lookup.forbids(&class)
			c.classes[class] = cut
			if over || cut.by == (causes{}) {
				delete(c.classes, class)
			}
		}
	})
	if found != nil {
		c.lastLook = found.at
	}
	return flows
}

// members returns the members of the sets of one family: nil for a set that had none
// for some time, or that no closed link asks for.
func (c *cuts) members(family ruleset.Family, links compile.Links, now time.Time) compile.Cuts {
	var members compile.Cuts
	for cause := range members {
		set := compile.CutSet(family, compile.CutCause(cause))
		members[cause] = c.membersBy(compile.CutCause(cause), family)
		if len(members[cause]) > 0 {
			c.last[set] = now
		}
		if now.Sub(c.last[set]) > lingerFor {
			members[cause] = nil
		}
	}
	if !links.Closed() {
		members[compile.ByLink] = nil
	}
	return members
}

func (c *cuts) membersBy(cause compile.CutCause, family ruleset.Family) ruleset.Members {
	members := ruleset.Members{}
	for class, cut := range c.classes {
		if !cut.by[cause] || !family.Holds(class.Client) {
			continue
		}
		for _, cut := range packetsOf(class) {
			for _, port := range [...]uint16{cut.Port, cut.Answer} {
				members[cutMember(cut.Client, cut.Server, cut.Protocol, port)] = struct{}{}
			}
		}
	}
	return members
}

// packetsOf returns the classes to which the kernel counts the packets of a class that
// is cut. Once it has forgotten an entry that it picked up, the server's next packet
// makes another one unless the class that is forbidden is cut as well. Where either end may have
// opened the connections, that one may have others, which are allowed.
func packetsOf(class conntrack.Class) []conntrack.Class {
	classes := []conntrack.Class{class}
	if class.Opener == conntrack.Second {
		classes = append(classes, class.Readings()...)
	}
	return classes
}

func cutMember(client, server netip.Addr, protocol policy.Protocol, port uint16) ruleset.Member {
	member := ruleset.Address(client)
	member.Protocol, member.Port, member.Server = uint8(protocol), port, server
	return member
}

// followCuts brings what is cut up to date with the model and with the last look.
// It reports whether rules are needed that weren't, or the other way round.
func (e *enforcer) followCuts(m *node.Model) (bool, error) {
	if err := e.cutter.open(); err != nil {
		return false, err
	}
	if e.cuts == nil {
		have, err := e.sets.Read()
		if err != nil {
			return false, err
		}
		e.cuts = adopt(have, e.cutter.clientPorts(), time.Now())
	}
	now := time.Now()
	e.metrics.Cut(e.cuts.follow(e.cutter.take(), m, e.enforced(), now))
	changed := false
	for i := range e.outputs {
		output := &e.outputs[i]
		members := e.cuts.members(output.Ruleset.Family, e.links, now)
		for cause, cut := range output.Cuts {
			changed = changed || (members[cause] == nil) != (cut == nil)
			e.recompiled = e.recompiled || !maps.Equal(members[cause], cut)
		}
		output.Cuts = members
	}
	return changed, nil
}

// enforced is the view as connections are judged by it: the pods are closed that
// policies in quarantine isolate, and the links that lead to them, once these were
// found to be at fault.
func (e *enforcer) enforced() *view {
	faulty := e.quarantine.faulty()
	if len(faulty) == len(e.quarantine) {
		e.judged = e.links
	}
	enforced := *e.view
	enforced.Endpoints = faulty.close(enforced.Endpoints)
	enforced.links = e.judged
	return &enforced
}

// lookForCuts asks for looks at the table of connections where connections may have
// become forbidden: the kernel is stricter than it was, or a pod is gone.
func (e *enforcer) lookForCuts(m *node.Model) {
	enforced := e.enforced()
	e.cutter.watch(len(e.cuts.classes) > 0, enforced, e.cuts.cutPickedUp())
	if released := m.TakeReleased(); e.stricter || len(released) > 0 {
		e.cutter.request(m, enforced, released)
	}
	if e.hooked {
		e.cutter.resume(e.begun)
	}
	e.stricter, e.hooked = false, false
}
