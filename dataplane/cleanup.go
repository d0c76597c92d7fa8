package dataplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/health"
	"github.com/moat-dev/moat/dataplane/host"
	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Limits of Cleanup.
const (
	// busyWait is how long sets may stay in use after their rules went: with nft the
	// kernel lets go of them a moment later.
	busyWait = 5 * time.Second
	// busyPoll is how often it is tried.
	busyPoll = 20 * time.Millisecond
)

// errAgentRuns means that an agent would put back what is removed.
var errAgentRuns = errors.New("an agent still runs on this node and would put the rules back; stop it first")

// Cleanup removes every trace of Moat from the network namespace of the calling
// thread: hooks and chains in both backends and families, then all sets. It is for
// a node whose agent is gone and doesn't begin while one answers at healthAddress.
// What is done it writes to out, a line each. The error says what is left and why;
// what could be removed is gone all the same. A second run does no harm.
//
// Every MOAT-FORWARD chain names sets, and the kernel keeps a set that a rule names.
// So once all sets are gone no rule of Moat's filters anything, not even in a table
// that can't be read.
func Cleanup(ctx context.Context, healthAddress string, out io.Writer) error {
	if _, answered := health.Ask(ctx, healthAddress); answered {
		return fmt.Errorf("asking http://%s/healthz: %w: it is %s", healthAddress, errAgentRuns, health.HeldBy(ctx, healthAddress))
	}
	return Remove(ctx, out)
}

// Remove is Cleanup for an agent that cleans its own node: it holds the health port and
// has stopped to enforce.
func Remove(ctx context.Context, out io.Writer) error {
	sets, err := ipset.Open(compile.SetPrefix)
	if err != nil {
		return err
	}
	defer sets.Close()
	c := &cleanup{out: out, sets: sets}
	err = errors.Join(c.removeRules(ctx), c.removeSets(ctx))
	if err == nil {
		err = c.lookAgain(ctx)
	}
	if iptables.IsPermission(err) || ipset.IsPermission(err) {
		return fmt.Errorf("this needs root with the capability NET_ADMIN in the node's network namespace: %w", err)
	}
	return err
}

// cleanup is one run of Cleanup.
type cleanup struct {
	out     io.Writer
	sets    *ipset.Kernel
	tables  []mangleTable
	unknown []string // tables that can't be looked into, with the reason
}

// mangleTable is the mangle table of one backend and family.
type mangleTable struct {
	name   string
	runner *iptables.Runner
}

func (c *cleanup) printf(format string, args ...any) { _, _ = fmt.Fprintf(c.out, format+"\n", args...) }

func (c *cleanup) removeRules(ctx context.Context) error {
	var errs []error
	for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
		for _, family := range host.Families() {
			errs = append(errs, c.removeRulesOf(ctx, backend, family))
		}
	}
	return errors.Join(append(errs, c.removeStrays(ctx))...)
}

// removeStrays takes away what an older version left in other tables.
func (c *cleanup) removeStrays(ctx context.Context) error {
	observer, err := iptables.OpenObserver()
	if err != nil {
		return err
	}
	defer observer.Close()
	chains, err := observer.Chains()
	errs := []error{err}
	for _, s := range straysOf(chains) {
		name := fmt.Sprintf("%s, %s, %s table", s.backend, s.family, s.table)
		change, err := s.remove(ctx, nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: removing Moat's rules: %w", name, err))
			continue
		}
		c.printf("%s: removed %s", name, removed(&change))
	}
	return errors.Join(errs...)
}

func (c *cleanup) removeRulesOf(ctx context.Context, backend iptables.Backend, family ruleset.Family) error {
	table := mangleTable{name: fmt.Sprintf("%s, %s", backend, family)}
	var err error
	var change iptables.Change
	if table.runner, err = iptables.NewRunner(backend, family, compile.ChainPrefix); err == nil {
		change, err = table.runner.Remove(ctx)
	}
	if iptables.IsUnreadable(err) {
		if removed, unreadErr := removeUnread(ctx, table.runner); unreadErr == nil {
			c.printf("%s: removed %d chains and the hooks without reading the table, since %v", table.name, len(removed.Delete), err)
			return nil
		}
	}
	var uses []string
	if iptables.IsFailure(err) {
		uses, _ = table.foreignUses(ctx) // a second error adds nothing to the first
	}
	switch {
	case errors.Is(err, iptables.ErrMissing) || iptables.IsUnreadable(err):
		c.unknown = append(c.unknown, fmt.Sprintf("%s: %v", table.name, err))
		c.printf("%s: not looked into: %v", table.name, err)
		return nil
	case err != nil:
		return fmt.Errorf("%s: removing Moat's rules: %w%s", table.name, err, quote(uses))
	case change.Empty():
		c.printf("%s: no rules of Moat", table.name)
	default:
		c.printf("%s: removed %s", table.name, removed(&change))
	}
	c.tables = append(c.tables, table)
	return nil
}

// removeUnread takes Moat's rules out of a table that iptables can't print.
func removeUnread(ctx context.Context, runner *iptables.Runner) (iptables.Change, error) {
	observer, err := iptables.OpenObserver()
	if err != nil {
		return iptables.Change{}, err
	}
	defer observer.Close()
	return runner.RemoveUnread(ctx, observer)
}

func removed(change *iptables.Change) string {
	text := fmt.Sprintf("%d chains", len(change.Delete))
	if len(change.Rehook) > 0 {
		text += " and the hooks in " + strings.Join(change.Rehook, ", ")
	}
	return text
}

// foreignUses returns the rules of other programs that keep chains or sets in use.
func (f *mangleTable) foreignUses(ctx context.Context) ([]string, error) {
	uses, err := f.runner.ForeignUses(ctx, compile.SetPrefix)
	for i := range uses {
		uses[i] = f.name + ": " + uses[i]
	}
	return uses, err
}

// quote lists what is in the way, one to a line.
func quote(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return "\n  " + strings.Join(lines, "\n  ")
}

// removeSets destroys all sets, those too that an agent left that died while it
// enlarged one.
func (c *cleanup) removeSets(ctx context.Context) error {
	have, err := c.sets.Read()
	if err != nil {
		return err
	}
	left := slices.Sorted(maps.Keys(have))
	err = c.destroy(ctx, &left)
	if gone := len(have) - len(left); gone > 0 || len(left) == 0 {
		c.printf("ipset: removed %d sets", gone)
	}
	if err != nil || len(left) == 0 {
		return err
	}
	why := slices.Clone(c.unknown)
	for i := range c.tables {
		uses, err := c.tables[i].foreignUses(ctx)
		if err != nil {
			uses = []string{fmt.Sprintf("%s: %v", c.tables[i].name, err)}
		}
		why = append(why, uses...)
	}
	if len(why) == 0 {
		why = []string{"no rule that iptables shows names them: look for other sets that hold them (ipset list)"}
	}
	return fmt.Errorf("removing ipsets: still in use: %s%s", strings.Join(left, ", "), quote(why))
}

// destroy tries for a while, and leaves the names of the sets that are still in
// use.
func (c *cleanup) destroy(ctx context.Context, left *[]string) error {
	ctx, cancel := context.WithTimeout(ctx, busyWait)
	defer cancel()
	for {
		busy, err := c.sets.Shrink(&ipset.Plan{Destroy: *left})
		if err != nil {
			return err
		}
		*left = busy
		if len(busy) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(busyPoll):
		}
	}
}

// lookAgain finds what came back: an agent may run whose health check is
// elsewhere.
func (c *cleanup) lookAgain(ctx context.Context) error {
	for i := range c.tables {
		change, err := c.tables[i].runner.Remains(ctx)
		if err == nil && !change.Empty() {
			err = fmt.Errorf("%s came back: %w", change, errAgentRuns)
		}
		if err != nil {
			return fmt.Errorf("%s: looking again: %w", c.tables[i].name, err)
		}
	}
	have, err := c.sets.Read()
	if err == nil && len(have) > 0 {
		err = fmt.Errorf("ipset: looking again: %s came back: %w", strings.Join(slices.Sorted(maps.Keys(have)), ", "), errAgentRuns)
	}
	return err
}
