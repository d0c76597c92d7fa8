package iptables

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// probeChain is the chain that a probe makes and deletes, after the prefix of Moat's chains.
const probeChain = "PROBE"

// Accepts reports whether the programs and the kernel accept a rule with these matches. It tries a
// transaction that leaves nothing behind. An error says that the answer isn't known, for example
// since the xtables lock was taken.
func (r *Runner) Accepts(ctx context.Context, match ...ruleset.Match) (bool, error) {
	_, err := run(ctx, r.Timeout, r.probe(match), r.restore, "--noflush", "--wait", strconv.Itoa(lockWait))
	if IsRefusal(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("probing the %s table: %w", r.table, err)
	}
	return true, nil
}

// probe makes a chain with one rule and deletes it, in one transaction.
func (r *Runner) probe(match []ruleset.Match) string {
	chain := r.prefix + probeChain
	return strings.Join([]string{
		"*" + r.table,
		":" + chain + " - [0:0]",
		"-A " + chain + " " + renderRule(ruleset.Rule{Match: match, Action: ruleset.Return}),
		"-F " + chain,
		"-X " + chain,
		"COMMIT",
		"",
	}, "\n")
}
