package iptables

import (
	"context"
	"strconv"
	"strings"
)

// ReadCounting is Read, and returns how many packets came to the rules of each chain that have
// no condition, and drop or return; 0 where there is no such chain. The counters start anew
// when the chain is rewritten.
func (r *Runner) ReadCounting(ctx context.Context, chains ...string) (Table, map[string]uint64, error) {
	output, err := r.saved(ctx, "-c")
	if err != nil {
		return Table{}, nil, err
	}
	packets := map[string]uint64{}
	for _, chain := range chains {
		packets[chain] = parsePackets(output, chain)
	}
	return ParseSave(withoutCounters(output), r.prefix), packets, nil
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

// parsePackets sums up lines like "[7:420] -A CHAIN -j DROP".
func parsePackets(output, chain string) (packets uint64) {
	for line := range strings.Lines(output) {
		counters, rule, _ := strings.Cut(strings.TrimSpace(line), " ")
		if rule != "-A "+chain+" -j DROP" && rule != "-A "+chain+" -j RETURN" {
			continue
		}
		text, _, _ := strings.Cut(strings.TrimPrefix(counters, "["), ":")
		if count, err := strconv.ParseUint(text, 10, 64); err == nil {
			packets += count
		}
	}
	return packets
}
