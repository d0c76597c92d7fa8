package iptables

import (
	"slices"
	"strings"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// tableName is the table in which Moat filters. Its FORWARD and INPUT come after the destination
// NAT of Services and before those of the filter table. So no rule that another program puts into
// the filter table can bypass Moat's.
const tableName = "mangle"

// Table is the part of one family's table that concerns Moat: Moat's chains,
// and the places of Moat's jumps in the built-in chains.
type Table struct {
	// Chains maps the name of each of Moat's chains to its rules, as
	// iptables-save prints them without "-A CHAIN".
	Chains map[string][]string

	// Hooks maps each built-in chain that has a jump to one of Moat's chains to
	// the list of those jumps.
	Hooks map[string][]HookPosition
}

// builtins are the built-in chains that Moat may have hooks in, in the order in which
// they are put right.
var builtins = []string{"FORWARD", "INPUT", "OUTPUT", "PREROUTING"}

// HookPosition is a jump from a built-in chain to one of Moat's.
type HookPosition struct {
	Rule  string // as iptables-save prints it, without "-A CHAIN"
	Index int    // 0: the first rule of the built-in chain
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
		t.Hooks[hook.Builtin] = []HookPosition{{Rule: renderRule(hook.Rule())}}
	}
	return t
}

// ParseSave reads the output of "iptables-save -t mangle". It skips lines that don't concern
// Moat.
func ParseSave(output, prefix string) Table {
	t := Table{Chains: map[string][]string{}, Hooks: map[string][]HookPosition{}}
	length := map[string]int{}
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, ":"); ok {
			name, _, _ = strings.Cut(name, " ")
			if owned(name, prefix) {
				t.Chains[name] = []string{}
			}
			continue
		}
		rest, ok := strings.CutPrefix(line, "-A ")
		if !ok {
			continue
		}
		chain, rule, _ := strings.Cut(rest, " ")
		if owned(chain, prefix) {
			t.Chains[chain] = append(t.Chains[chain], rule)
		} else if target := hookTarget(chain, rule); owned(target, prefix) {
			t.Hooks[chain] = append(t.Hooks[chain], HookPosition{Rule: rule, Index: length[chain]})
		}
		length[chain]++
	}
	return t
}

// hookTarget returns the chain that a rule of a built-in chain jumps to, if it
// does so without a condition or with that of Moat's hooks. A hook is deleted by its
// text, so a rule of another text is no hook, not even one whose comment quotes a hook.
func hookTarget(chain, rule string) string {
	for _, condition := range hookConditions() {
		rule = strings.TrimPrefix(rule, condition)
	}
	words := strings.Fields(rule)
	if len(words) != 2 || words[0] != "-j" || !slices.Contains(builtins, chain) {
		return ""
	}
	return words[1]
}

// naming are the options of a rule that are followed by a chain or a set.
var naming = []string{"-j", "-g", "--match-set", "--add-set", "--del-set", "--map-set"}

// ForeignUses returns the rules of an iptables-save that name a chain or a set
// with one of the prefixes. It leaves out hooks and the rules of such chains.
func ForeignUses(output, chainPrefix, setPrefix string) []string {
	var uses []string
	for line := range strings.Lines(output) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "-A ")
		chain, rule, _ := strings.Cut(rest, " ")
		if !ok || owned(chain, chainPrefix) || owned(hookTarget(chain, rule), chainPrefix) {
			continue
		}
		words := strings.Fields(rule)
		for i := 1; i < len(words); i++ {
			if slices.Contains(naming, words[i-1]) && (owned(words[i], chainPrefix) || strings.HasPrefix(words[i], setPrefix)) {
				uses = append(uses, "-A "+rest)
				break
			}
		}
	}
	return uses
}
