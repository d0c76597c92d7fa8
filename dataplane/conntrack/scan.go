package conntrack

import (
	"net/netip"
	"slices"

	"github.com/moat-dev/moat/dataplane/policy"
)

// Addresses is a set of addresses.
type Addresses map[netip.Addr]struct{}

// Scan goes through a table of connections and keeps what matters. Its memory and
// the work after it depend on the classes of isolated pods, not on the table.
type Scan struct {
	// Isolated are the addresses of the node's isolated pods, for each direction.
	Isolated [policy.Directions]Addresses

	// Released are addresses that no pod has any more.
	Released Addresses

	// Entries counts all entries seen.
	Entries int

	// Classes counts the entries of each class that policies of the node have a say
	// in.
	Classes map[Class]int

	// Forget are the entries to delete.
	Forget []Key
}

// Key identifies an entry of the kernel's table. A later entry with the same ends
// has another one.
type Key struct {
	v6                 bool
	original, id, zone []byte
}

// Add looks at one entry.
func (s *Scan) Add(e *Entry) {
	s.Entries++
	if s.has(s.Released, e) {
		s.forget(e)
		return
	}
	_, sends := s.Isolated[policy.Egress][e.Client]
	_, receives := s.Isolated[policy.Ingress][e.Server]
	switch {
	case !sends && !receives, e.Client == e.Server:
	case e.Protocol == 0:
		// No set can hold protocol 0 (IPv6 hop-by-hop options, and nothing that is in
		// use). Its next packet is judged as a new connection.
		s.forget(e)
	default:
		if s.Classes == nil {
			s.Classes = map[Class]int{}
		}
		s.Classes[e.Class]++
	}
}

func (s *Scan) has(addrs Addresses, e *Entry) bool {
	if len(addrs) == 0 {
		return false
	}
	_, client := addrs[e.Client]
	_, server := addrs[e.Server]
	return client || server
}

func (s *Scan) forget(e *Entry) {
	s.Forget = append(s.Forget, Key{
		v6: e.Client.Is6(), original: slices.Clone(e.original), id: slices.Clone(e.id), zone: slices.Clone(e.zone),
	})
}
