package iptables

import (
	"bufio"
	"slices"
	"strings"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Table is what Moat has to know of one family's filter table: its own chains,
// and in the built-in chains the places of its own jumps.
type Table struct {
	// Chains maps the name of each of Moat's chains to its rules, as
	// iptables-save prints them without "-A CHAIN".
	Chains map[string][]string

	// Hooks maps each built-in chain that has a jump to one of Moat's chains to
	// the list of those jumps.
	Hooks map[string][]HookPosition
}

// HookPosition is a jump from a built-in chain to one of Moat's.
type HookPosition struct {
	Chain string
	Index int // 0: the first rule of the built-in chain
}

// Desired returns the table that a ruleset asks for.
func Desired(rs *ruleset.Ruleset) Table {
	t := Table{Chains: map[string][]string{}, Hooks: map[string][]HookPosition{}}
	for _, chain := range rs.Chains {
		rules := make([]string, len(chain.Rules))
		for i, rule := range chain.Rules {
			rules[i] = renderRule(rule)
		}
		t.Chains[chain.Name] = rules
	}
	for _, hook := range rs.Hooks {
		t.Hooks[hook.Builtin] = []HookPosition{{Chain: hook.Chain}}
	}
	return t
}

// ParseSave reads the output of "iptables-save -t filter". Lines that don't
// concern Moat are passed over.
func ParseSave(output, prefix string) Table {
	t := Table{Chains: map[string][]string{}, Hooks: map[string][]HookPosition{}}
	length := map[string]int{}
	lines := bufio.NewScanner(strings.NewReader(output))
	// A rule with a long comment or many matches exceeds the scanner's default.
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if name, ok := strings.CutPrefix(line, ":"); ok {
			name, _, _ = strings.Cut(name, " ")
			if strings.HasPrefix(name, prefix) {
				t.Chains[name] = []string{}
			}
			continue
		}
		rest, ok := strings.CutPrefix(line, "-A ")
		if !ok {
			continue
		}
		chain, rule, _ := strings.Cut(rest, " ")
		if strings.HasPrefix(chain, prefix) {
			t.Chains[chain] = append(t.Chains[chain], rule)
		} else if target := jumpTarget(rule); strings.HasPrefix(target, prefix) {
			t.Hooks[chain] = append(t.Hooks[chain], HookPosition{Chain: target, Index: length[chain]})
		}
		length[chain]++
	}
	return t
}

// jumpTarget returns the chain that a rule jumps to.
func jumpTarget(rule string) string {
	words := strings.Fields(rule)
	i := slices.Index(words, "-j")
	if i < 0 || i+1 == len(words) {
		return ""
	}
	return words[i+1]
}
