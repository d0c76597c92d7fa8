package iptables

import (
	"context"
	"strconv"
	"strings"
)

// Counters are what the rules of a table counted. The zero value counted nothing. When a chain is
// rewritten, its counters start from zero.
type Counters struct{ saved string }

// ReadCounting is Read, and returns the counters.
func (r *Runner) ReadCounting(ctx context.Context) (Table, Counters, error) {
	output, err := r.saved(ctx, "-c")
	if err != nil {
		return Table{}, Counters{}, err
	}
	return ParseSave(withoutCounters(output), r.prefix), Counters{output}, nil
}

// withoutCounters turns lines like "[7:420] -A CHAIN -j DROP" into rules.
func withoutCounters(output string) string {
	var rules strings.Builder
	for line := range strings.Lines(output) {
		if counters, rule, ok := strings.Cut(line, "] "); ok && strings.HasPrefix(counters, "[") {
			line = rule
		}
		rules.WriteString(line)
	}
	return rules.String()
}

// Packets returns how many packets came to the rules of a chain that have no condition, and
// drop or return. It returns 0 where there is no such chain.
func (c Counters) Packets(chain string) (packets uint64) {
	for line := range strings.Lines(c.saved) {
		counters, rule, _ := strings.Cut(strings.TrimSpace(line), " ")
		if rule == "-A "+chain+" -j DROP" || rule == "-A "+chain+" -j RETURN" {
			packets += packetsOf(counters)
		}
	}
	return packets
}

// ByInterface returns how many packets came to a chain, by the name of an interface or of a
// bridge's port. It counts rules that lead there by that name alone.
func (c Counters) ByInterface(target string) map[string]uint64 {
	packets := map[string]uint64{}
	for line := range strings.Lines(c.saved) {
		rule, goes := strings.CutSuffix(strings.TrimSpace(line), " -g "+target)
		if !goes {
			continue
		}
		words := strings.Fields(rule)
		for _, named := range []string{"-i", "-m physdev --physdev-in"} {
			n := len(words) - 1 // [7:420] -A CHAIN, and the condition, before the name
			if n > 3 && strings.Join(words[3:n], " ") == named {
				packets[words[n]] += packetsOf(words[0])
			}
		}
	}
	return packets
}

// packetsOf reads counters like "[7:420]".
func packetsOf(counters string) uint64 {
	text, _, _ := strings.Cut(strings.TrimPrefix(counters, "["), ":")
	count, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return count
}
