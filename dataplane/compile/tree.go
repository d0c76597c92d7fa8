package compile

import (
	"net/netip"
	"slices"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// addressTree makes the dispatch tree of one side: chains that lead a packet to the rules of
// its address with few comparisons.
type addressTree struct {
	family ruleset.Family
	side   ruleset.Side
	rules  func(netip.Addr) []ruleset.Rule // the rules of one address
	rest   ruleset.Rule                    // for packets of any other address
	add    func(chain string, rules ...ruleset.Rule)
}

// grow makes the dispatch chain of sorted addresses. Where they are few, it holds their rules.
// Otherwise it leads to branches: to further dispatch chains, by the addresses' bits from the
// given one on, counted from the lowest.
func (t *addressTree) grow(chain string, addrs []netip.Addr, bit int) {
	var rules []ruleset.Rule
	if len(addrs) <= dispatchMost || len(chain) == longestChain {
		for _, addr := range addrs {
			rules = append(rules, t.rules(addr)...)
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
	// The last branch takes all other packets: its chains end with the rest.
	rules[len(rules)-1].Match = nil
	t.add(chain, rules...)
}

// spread divides different addresses by branchBits of their bits: by the first such bits, from
// the given one on, in which they differ. It returns the place of these bits too.
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
