package iptables

import (
	"encoding/binary"
	"hash/maphash"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/nfnetlink"
	"github.com/moat-dev/moat/dataplane/kernel/nlattr"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Imprint stands for the rules of one family's mangle table, without counters. It doesn't depend
// on the meaning of the rules: also rules that iptables can't print have one.
type Imprint struct {
	whole uint64

	// chains has what stands for the rules of each chain, firsts what stands for the
	// first rule of each built-in chain. Both are nil with legacy: there a jump is a distance
	// within the table, so the imprint of the whole table stands for each chain.
	chains, firsts map[string]uint64
}

// chain returns what stands for the rules of a chain.
func (i *Imprint) chain(name string) uint64 {
	if i.chains == nil {
		return i.whole
	}
	return i.chains[name]
}

// first returns what stands for the first rule of a built-in chain.
func (i *Imprint) first(builtin string) uint64 {
	if i.firsts == nil {
		return i.whole
	}
	return i.firsts[builtin]
}

// Rules stands for the rules of all mangle tables of the node. The zero value is the same as no
// other value.
type Rules struct {
	generation  uint32 // of all nft tables: while it is the same, no nft table has changed
	taken       bool
	nft, legacy [2]Imprint
}

// Same reports whether the tables hold the same rules.
func (r Rules) Same(other Rules) bool {
	same := r.taken && other.taken
	for i := range r.nft {
		same = same && r.nft[i].whole == other.nft[i].whole && r.legacy[i].whole == other.legacy[i].whole
	}
	return same
}

// Keep reports whether chains with the prefix, and the first rules of built-in chains, are the
// same in both for one family. With legacy, all other rules have to be the same too.
func (r Rules) Keep(left Rules, backend Backend, family ruleset.Family, prefix string) bool {
	if !r.taken || !left.taken {
		return false
	}
	now, before := r.imprint(backend, family), left.imprint(backend, family)
	if before.chains == nil {
		return now.whole == before.whole
	}
	for _, i := range []*Imprint{now, before} {
		for chain := range i.chains {
			if owned(chain, prefix) && now.chain(chain) != before.chain(chain) {
				return false
			}
		}
	}
	return maps.Equal(now.firsts, before.firsts)
}

// Update takes one family's imprint from others. It takes no other family's, so it forgets the
// generation, and the next call of Observer.Rules reads all tables.
func (r *Rules) Update(others Rules, backend Backend, family ruleset.Family) {
	*r.imprint(backend, family) = *others.imprint(backend, family)
	r.generation = 0
}

// Taken reports whether the value stands for tables, and isn't the zero value.
func (r Rules) Taken() bool { return r.taken }

func (r *Rules) imprint(backend Backend, family ruleset.Family) *Imprint {
	of := &r.nft
	if backend == Legacy {
		of = &r.legacy
	}
	return &of[slices.Index(ruleset.Families(), family)]
}

// unread is the rule of a chain whose rules aren't known. No other rule equals it.
const unread = "unread"

// Unread returns what is known of a table that can't be read, but whose chains have the given
// names. Where the present rules are those that the agent left, they are those of the table that
// it left.
func Unread(names []string, now, left Rules, backend Backend, family ruleset.Family, table Table) Table {
	t := Table{Chains: map[string][]string{}, Hooks: map[string][]HookPosition{}}
	present, before := now.imprint(backend, family), left.imprint(backend, family)
	known := now.taken && left.taken
	for _, name := range names {
		t.Chains[name] = []string{unread}
		if rules, were := table.Chains[name]; known && were && present.chain(name) == before.chain(name) {
			t.Chains[name] = rules
		}
	}
	for _, builtin := range builtins {
		if hooks := table.Hooks[builtin]; known && len(hooks) > 0 && present.first(builtin) == before.first(builtin) {
			t.Hooks[builtin] = hooks
		}
	}
	return t
}

// prime mixes values whose order counts.
const prime = 1099511628211

// imprintOf takes the imprint of one family's nft table.
func imprintOf(s *nfnetlink.Socket, family uint8, table string) (Imprint, error) {
	var i Imprint
	var hash maphash.Hash
	hash.SetSeed(seed)
	begin := func() { i = Imprint{chains: map[string]uint64{}, firsts: map[string]uint64{}} }
	err := dump(s, unix.NFT_MSG_GETRULE, family, inTable(table), begin, func(r nfnetlink.Reply) {
		hash.Reset()
		hashRule(&hash, r.Attributes)
		sum, chain := hash.Sum64(), textOf(r.Attributes, ruleChain)
		if _, begun := i.chains[chain]; !begun {
			i.firsts[chain] = sum
		}
		i.whole = i.whole*prime + sum
		i.chains[chain] = i.chains[chain]*prime + sum
	})
	maps.DeleteFunc(i.firsts, func(chain string, _ uint64) bool { return !slices.Contains(builtins, chain) })
	return i, err
}

func inTable(table string) []byte {
	var b []byte
	nlattr.Append(&b, unix.NFTA_RULE_TABLE, append([]byte(table), 0)...)
	return b
}

// Unhook deletes the jumps from built-in chains of an nft mangle table to chains with
// the prefix. A first rule of a chain stays if keep names its chain. Unhook doesn't interpret any
// other rule, so it works where iptables fails.
func (o *Observer) Unhook(family ruleset.Family, prefix string, keep []string) error {
	number := nftFamilies[slices.Index(ruleset.Families(), family)]
	var deletions []nfnetlink.Request
	begun := map[string]bool{} // chains whose next rule isn't a first rule that stays
	begin := func() {
		deletions = nil
		for _, chain := range builtins {
			begun[chain] = !slices.Contains(keep, chain)
		}
	}
	err := dump(o.nft, unix.NFT_MSG_GETRULE, number, inTable(tableName), begin, func(r nfnetlink.Reply) {
		chain := textOf(r.Attributes, ruleChain)
		if begun[chain] && slices.Contains(builtins, chain) && jumpsTo(r.Attributes, prefix) {
			attributes := inTable(tableName)
			nlattr.Append(&attributes, unix.NFTA_RULE_CHAIN, append([]byte(chain), 0)...)
			nlattr.Append(&attributes, unix.NFTA_RULE_HANDLE, attribute(r.Attributes, ruleHandle)...)
			deletions = append(deletions, nfnetlink.Request{Command: unix.NFT_MSG_DELRULE, Family: number, Attributes: attributes})
		}
		begun[chain] = true
	})
	if err != nil || len(deletions) == 0 {
		return err
	}
	return o.nft.Transact(unix.NFNL_SUBSYS_NFTABLES, deletions)
}

// jumpsTo reports whether one of the rule's verdicts leads to a chain with the prefix:
// NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE and NFTA_VERDICT_CHAIN.
func jumpsTo(rule []byte, prefix string) bool {
	for _, expression := range nlattr.All(attribute(rule, ruleExpressions)) {
		if textOf(expression, expressionName) != "immediate" {
			continue
		}
		verdict := attribute(attribute(attribute(expression, expressionData), unix.NFTA_IMMEDIATE_DATA), unix.NFTA_DATA_VERDICT)
		code := attribute(verdict, unix.NFTA_VERDICT_CODE)
		if len(code) == 4 && int32(binary.BigEndian.Uint32(code)) < 0 && owned(textOf(verdict, unix.NFTA_VERDICT_CHAIN), prefix) {
			return true
		}
	}
	return false
}

// attribute returns the content of the attribute of a kind. It is nil where there is none.
func attribute(content []byte, wanted int) []byte {
	for kind, value := range nlattr.All(content) {
		if kind == wanted {
			return value
		}
	}
	return nil
}
