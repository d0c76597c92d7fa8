package iptables

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// countTimeout ends a program that hangs while somebody waits for a number.
const countTimeout = 5 * time.Second

// Drops returns how many packets the rules of a chain dropped that have no condition;
// 0 where there is no such chain. The counters start anew when the chain is rewritten.
func (r *Runner) Drops(ctx context.Context, chain string) (uint64, error) {
	output, err := run(ctx, countTimeout, "", r.save, "-c", "-t", tableName)
	if err != nil {
		return 0, fmt.Errorf("reading counters of the mangle table: %w", err)
	}
	return parseDrops(output, chain), nil
}

// parseDrops sums up lines like "[7:420] -A CHAIN -j DROP".
func parseDrops(output, chain string) (packets uint64) {
	for line := range strings.Lines(output) {
		counters, rule, _ := strings.Cut(strings.TrimSpace(line), " ")
		if rule != "-A "+chain+" -j DROP" {
			continue
		}
		text, _, _ := strings.Cut(strings.TrimPrefix(counters, "["), ":")
		if count, err := strconv.ParseUint(text, 10, 64); err == nil {
			packets += count
		}
	}
	return packets
}
