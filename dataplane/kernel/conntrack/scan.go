package conntrack

import (
	"net/netip"
	"slices"

	"github.com/moat-dev/moat/dataplane/policy"
)

// Addresses is a set of addresses.
type Addresses map[netip.Addr]struct{}

// Has reports whether the address is in the set, which may be nil.
func (a Addresses) Has(addr netip.Addr) bool {
	_, has := a[addr]
	return has
}

// Scan reads a table of connections once and keeps the part that policies may forbid. Its memory
// and the work after it depend on the classes of isolated pods, not on the length of the table.
type Scan struct {
	// Isolated are the addresses of the node's isolated pods, for each direction.
	Isolated [policy.Directions]Addresses

	// Links says for each direction whether a link of the node is closed for
	// link-local addresses (see compile.Links): for those of clients (Egress), or for those of
	// servers (Ingress).
	Links [policy.Directions]bool

	// Released are addresses that pods had, and that no pod has now.
	Released Addresses

	// ClientPorts are the ports that clients use on this node.
	ClientPorts Ports

	// Resumed says that the kernel has just begun to track connections. So it may have picked
	// up an entry of UDP that isn't assured.
	Resumed bool

	// Late says of such a scan that an entry that was picked up may be assured: AssuredAfter or
	// more has passed since the kernel began, or since the last scan.
	Late bool

	// Cut are picked-up classes that are cut already.
	Cut map[Class]struct{}

	// Answered are the Answers of the last scan.
	Answered map[Class]struct{}

	// Entries counts all entries seen.
	Entries int

	// Answers are the classes of UDP of which the kernel saw an answer first, also those that no
	// policy may forbid. Once they are assured they look like any other class, so the next scan
	// has to know them.
	Answers map[Class]struct{}

	// Classes counts the entries of each class that policies of the node, or its closed links,
	// may forbid.
	Classes map[Class]int

	// Forget are the entries to delete.
	Forget []Key
}

// Key identifies an entry of the kernel's table. A later entry with the same ends
// has another key.
type Key struct {
	v6                 bool
	original, id, zone []byte
}

// Add takes one entry of the table.
func (s *Scan) Add(e *Entry) {
	s.Entries++
	if s.Released.Has(e.Client) || s.Released.Has(e.Server) {
		s.forget(e)
		return
	}
	s.read(e)
	switch {
	case !s.hasASayAnyhow(&e.Class), e.Client == e.Server:
	case e.Protocol == 0:
		// No set can hold protocol 0, which only IPv6 hop-by-hop options have. The connection's
		// next packet is judged as a new connection.
		s.forget(e)
	default:
		if s.Classes == nil {
			s.Classes = map[Class]int{}
		}
		s.Classes[e.Class]++
	}
}

// hasASayAnyhow reports whether a policy of the node, or one of its links, may forbid
// the class, whichever end opened it.
func (s *Scan) hasASayAnyhow(c *Class) bool {
	if c.Opener == First { // nearly all, and Readings takes memory
		return s.hasASay(c)
	}
	return slices.ContainsFunc(c.Readings(), func(reading Class) bool { return s.hasASay(&reading) })
}

func (s *Scan) hasASay(c *Class) bool {
	return s.Isolated[policy.Egress].Has(c.Client) || s.Isolated[policy.Ingress].Has(c.Server) || s.linkHasASay(c)
}

// linkHasASay reports whether a link may be closed for the class. A packet to a multicast address
// has no answer. So its connection is never established, and each packet is judged as new.
func (s *Scan) linkHasASay(c *Class) bool {
	for d, closed := range s.Links {
		if closed && c.LinkLocal(policy.Direction(d)) {
			return !c.Server.IsMulticast()
		}
	}
	return false
}

func (s *Scan) forget(e *Entry) {
	s.Forget = append(s.Forget, Key{
		v6: e.Client.Is6(), original: slices.Clone(e.original), id: slices.Clone(e.id), zone: slices.Clone(e.zone),
	})
}
