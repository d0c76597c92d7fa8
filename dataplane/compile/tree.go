package compile

import (
	"net/netip"
	"slices"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// addressTree makes chains that lead a packet to the rules of its address, on one side, with
// few comparisons.
type addressTree struct {
	family ruleset.Family
	side   ruleset.Side
	leaf   func(netip.Addr) []ruleset.Rule // the rules of one address
	rest   ruleset.Rule                    // for packets of all other addresses
	add    func(chain string, rules ...ruleset.Rule)
}

// grow makes a chain for sorted addresses. Few are a leaf. More are spread by the address's
// bits from the given one on, counted from the lowest, over chains of their own.
func (t *addressTree) grow(chain string, addrs []netip.Addr, bit int) {
	var rules []ruleset.Rule
	if len(addrs) <= leafMost || len(chain) == longestChain {
		for _, addr := range addrs {
			rules = append(rules, t.leaf(addr)...)
		}
		t.add(chain, append(rules, t.rest)...)
		return
	}
	branches, bit := spread(addrs, bit)
	for i, branch := range branches {
		if len(branch) == 0 {
			continue
		}
		name := branchChain(chain, i)
		t.grow(name, branch, bit+branchBits)
		match := []ruleset.Match{bitsMatch(t.family, t.side, bit, i)}
		rules = append(rules, ruleset.Rule{Match: match, Action: ruleset.Goto, Target: name})
	}
	// The last branch takes what is left: its leaves know what to do with the rest.
	rules[len(rules)-1].Match = nil
	t.add(chain, rules...)
}

// spread divides different addresses by branchBits of their bits, from the first such
// place on at which they differ, and returns that place too.
func spread(addrs []netip.Addr, bit int) (branches [1 << branchBits][]netip.Addr, place int) {
	first := bitsOf(addrs[0], bit)
	if !slices.ContainsFunc(addrs, func(addr netip.Addr) bool { return bitsOf(addr, bit) != first }) {
		return spread(addrs, bit+branchBits)
	}
	for _, addr := range addrs {
		i := bitsOf(addr, bit)
		branches[i] = append(branches[i], addr)
	}
	return branches, bit
}
