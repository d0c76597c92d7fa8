package flows

import (
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

// Cuts are the classes of connections that are cut. Nil: the kernel's sets weren't
// read yet.
type Cuts struct {
	Classes  map[conntrack.Class]cut
	lastScan time.Time
	own      nodeAddresses
	last     map[string]time.Time // when a set held something last
	Linger   time.Duration        // how long the rules of one that holds nothing stay
}

// cut says of a class when a connection was last seen, and what forbids it.
type cut struct {
	seen time.Time
	by   causes
}

// Adopt takes over what an agent before this one cut.
func Adopt(sets ipset.State, ports conntrack.Ports, now time.Time) *Cuts {
	c := &Cuts{Classes: map[conntrack.Class]cut{}, lastScan: now, last: map[string]time.Time{}, Linger: lingerFor}
	for _, family := range ruleset.Families() {
		for cause := range compile.CutCauses {
			for member := range sets[compile.CutSet(family, cause)].Members {
				class := conntrack.Class{
					Client: member.Prefix.Addr(), Server: member.Server,
					Protocol: policy.Protocol(member.Protocol), Port: member.Port, Answer: member.Port,
				}
				c.Classes[class] = cut{seen: now} // follow says what forbids it
			}
		}
	}
	for _, picked := range pickedUp(c.Classes, ports) {
		c.Classes[picked] = cut{seen: now}
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

// Add cuts a class that was seen last at a time.
func (c *Cuts) Add(class conntrack.Class, seen time.Time) { c.Classes[class] = cut{seen: seen} }

// CutPickedUp returns the picked-up classes that are cut.
func (c *Cuts) CutPickedUp() map[conntrack.Class]struct{} {
	picked := map[conntrack.Class]struct{}{}
	for class := range c.Classes {
		if class.Opener != conntrack.First {
			picked[class] = struct{}{}
		}
	}
	return picked
}

// Follow takes in what a scan found, nil for none, and forgets what is over or
// allowed again. It returns how many connections are cut that weren't before.
func (c *Cuts) Follow(found *findings, m *node.Model, v *Enforced, now time.Time) (flows int) {
	if found != nil {
		if found.own.all != nil {
			c.own = found.own
		}
		for class, n := range found.forbidden {
			if _, known := c.Classes[class]; !known {
				flows += n
			}
			c.Add(class, found.at)
		}
	}
	if len(c.Classes) == 0 {
		return 0
	}
	lookup := newLookup(m, v, c.own)
	m.Peers(func(p node.Peers) {
		lookup.peers = p
		for class, cut := range c.Classes {
			// A scan may miss an entry while the kernel enlarges its table.
			over := found != nil && cut.seen.Before(c.lastScan) && (class.Protocol != policy.TCP || now.Sub(cut.seen) > lateFor)
			cut.by = lookup.forbids(&class)
			c.Classes[class] = cut
			if over || cut.by == (causes{}) {
				delete(c.Classes, class)
			}
		}
	})
	if found != nil {
		c.lastScan = found.at
	}
	return flows
}

// Members returns the members of the sets of one family: nil for a set that had none
// for some time, or that no closed link asks for.
func (c *Cuts) Members(family ruleset.Family, links compile.Links, now time.Time) compile.Cuts {
	var members compile.Cuts
	for cause := range members {
		set := compile.CutSet(family, compile.CutCause(cause))
		members[cause] = c.membersBy(compile.CutCause(cause), family)
		if len(members[cause]) > 0 {
			c.last[set] = now
		}
		if now.Sub(c.last[set]) > c.Linger {
			members[cause] = nil
		}
	}
	if !links.Closed() {
		members[compile.ByLink] = nil
	}
	return members
}

func (c *Cuts) membersBy(cause compile.CutCause, family ruleset.Family) ruleset.Members {
	members := ruleset.Members{}
	for class, cut := range c.Classes {
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
