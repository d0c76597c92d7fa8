package budget

// tally adds up what policies take. Policies that follow the same selector share its
// sets.
type tally struct {
	used      Amounts
	selectors map[string]selector
}

func newTally() *tally { return &tally{selectors: map[string]selector{}} }

// with returns what would be used if a policy came, with so many rules.
func (t *tally) with(c *cost, rules int) Amounts {
	used := t.used
	used[Prefixes] += c.prefixes
	used[Rules] += rules
	if c.selectors == nil {
		used[Sets] += c.sets
		used[Elements] += c.elements
		return used
	}
	used[Sets] += c.blocks
	for i := range c.selectors {
		before := t.selectors[c.selectors[i].key]
		after := join(before, c.selectors[i])
		used[Sets] += after.sets() - before.sets()
		used[Elements] += after.elements() - before.elements()
	}
	return used
}

// add adds a policy with which so much is used.
func (t *tally) add(c *cost, used Amounts) {
	t.used = used
	for i := range c.selectors {
		key := c.selectors[i].key
		t.selectors[key] = join(t.selectors[key], c.selectors[i])
	}
}

// join returns the sets of both. It doesn't know which names they follow, so equal sets count
// twice. Of two counts of pods it takes the larger: they may be of different times.
func join(a, b selector) selector {
	return selector{
		key: b.key, pods: b.pods,
		plain: max(a.plain, b.plain), names: a.names + b.names,
		addresses: max(a.addresses, b.addresses), ports: max(a.ports, b.ports),
	}
}
