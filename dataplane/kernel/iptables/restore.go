package iptables

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	goiptables "github.com/coreos/go-iptables/iptables"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Backend is a variant of iptables. A node has to use one only: the kernel also applies rules in
// the other one, but the node's programs don't list them.
type Backend string

// The backends, as they are reported.
const (
	NFT    Backend = "iptables-nft"
	Legacy Backend = "iptables-legacy"
)

// Limits of one run of a program.
const (
	// lockWait is how long a program waits for the xtables lock, in seconds.
	lockWait = 10
	// RunTimeout ends a program that hangs, unless a Runner says otherwise.
	RunTimeout = 30 * time.Second
	// killWait is how long the pipes of a program that has ended may stay open. On a busy
	// node, a second may pass until the agent reads them.
	killWait = 5 * time.Second
)

// ErrMissing means that the programs of a backend are not installed.
var ErrMissing = errors.New("iptables is not installed")

// ErrIncompatible means that the table holds rules that other programs made with
// nft and that iptables can't print. iptables-nft-save says so in a comment and
// ends with success.
var ErrIncompatible = errors.New("the table holds native nft rules")

// Runner runs the programs of one backend for one family, in the network
// namespace of the calling thread.
type Runner struct {
	// OnRestore, if not nil, is told the outcome of each restore.
	OnRestore func(error)

	// Timeout ends a program that hangs.
	Timeout time.Duration

	backend       Backend
	family        ruleset.Family
	table         string
	save, restore string
	prefix        string
}

// NewRunner finds the programs. The error is ErrMissing where there are none.
func NewRunner(backend Backend, family ruleset.Family, chainPrefix string) (*Runner, error) {
	command, protocol := "iptables", goiptables.ProtocolIPv4
	if family == ruleset.IPv6 {
		command, protocol = "ip6tables", goiptables.ProtocolIPv6
	}
	command += strings.TrimPrefix(string(backend), "iptables")
	if _, err := goiptables.New(goiptables.Path(command), goiptables.IPFamily(protocol)); err != nil {
		return nil, fmt.Errorf("finding %s: %w: %w", command, ErrMissing, err)
	}
	r := &Runner{Timeout: RunTimeout, backend: backend, family: family, table: tableName, prefix: chainPrefix}
	for program, path := range map[string]*string{"-save": &r.save, "-restore": &r.restore} {
		found, err := exec.LookPath(command + program)
		if err != nil {
			return nil, fmt.Errorf("finding %s%s: %w: %w", command, program, ErrMissing, err)
		}
		*path = found
	}
	return r, nil
}

// In returns a runner for another table than mangle.
func (r *Runner) In(table string) *Runner {
	other := *r
	other.table = table
	return &other
}

// Read returns the state of the table. It reads the whole table, since the answers of
// "iptables -C" have been wrong (iptables 1.8.10).
func (r *Runner) Read(ctx context.Context) (Table, error) {
	output, err := r.saved(ctx)
	if err != nil {
		return Table{}, err
	}
	return ParseSave(output, r.prefix), nil
}

// saved returns what iptables-save prints of the table.
func (r *Runner) saved(ctx context.Context, options ...string) (string, error) {
	output, err := run(ctx, r.Timeout, "", r.save, append([]string{"-t", r.table}, options...)...)
	if IsRefusal(err) {
		err = &unreadableError{err}
	}
	if err != nil {
		return "", fmt.Errorf("reading the %s table: %w", r.table, err)
	}
	incompatible := "# Table `" + r.table + "' is incompatible"
	if strings.HasPrefix(output, incompatible) || strings.Contains(output, "\n"+incompatible) {
		return "", fmt.Errorf("reading the %s table: %w", r.table, &unreadableError{ErrIncompatible})
	}
	return output, nil
}

// unreadableError says that a table holds rules that iptables can't print.
type unreadableError struct{ error }

func (e *unreadableError) Unwrap() error { return e.error }

// IsUnreadable reports whether Read failed since the table holds rules that iptables
// can't print: native nft rules, or an extension that this iptables doesn't have.
func IsUnreadable(err error) bool {
	var unreadable *unreadableError
	return errors.As(err, &unreadable)
}

// Apply makes a change as one transaction: all of it or, with an error, nothing.
func (r *Runner) Apply(ctx context.Context, change Change) error {
	return r.restored(r.write(ctx, change))
}

func (r *Runner) write(ctx context.Context, change Change) error {
	_, err := run(ctx, r.Timeout, change.script(r.table), r.restore, "--noflush", "--wait", strconv.Itoa(lockWait))
	if err != nil {
		return fmt.Errorf("restoring the %s table: %w", r.table, err)
	}
	return nil
}

func (r *Runner) restored(err error) error {
	if r.OnRestore != nil {
		r.OnRestore(err)
	}
	return err
}

// copiesAtMost bounds how many copies of a hook are deleted one by one.
const copiesAtMost = 16

// ApplyUnread makes a change of a table that can't be read, so its hooks aren't known. A restore
// doesn't depend on other programs' rules: it names chains, and inserts hooks at the front. But to
// delete a rule by its text does depend on them with nft, since iptables reads all rules first.
// There the observer deletes the other jumps to Moat's chains.
func (r *Runner) ApplyUnread(ctx context.Context, change Change, o *Observer) error {
	if len(change.Rehook) == 0 {
		return r.Apply(ctx, change)
	}
	if r.backend == NFT {
		err := r.restored(r.write(ctx, change.assuming(nil)))
		if err != nil {
			return err
		}
		if err := o.Unhook(r.family, r.prefix, builtins); err != nil {
			return fmt.Errorf("deleting old hooks in the %s table: %w", r.table, err)
		}
		return nil
	}
	var err error
	for _, assumed := range change.assumptions() {
		// One of the changes is refused where a hook isn't there, and all of them where a rule
		// is at fault.
		if err = r.write(ctx, assumed); !IsRefusal(err) {
			break
		}
	}
	if err == nil {
		r.deleteCopies(ctx, change.staleHooks())
	}
	return r.restored(err)
}

// deleteCopies makes each of the changes, which delete one copy of a hook, until none is
// left.
func (r *Runner) deleteCopies(ctx context.Context, hooks []Change) {
	for _, hook := range hooks {
		for copies := 0; copies < copiesAtMost && r.write(ctx, hook) == nil; copies++ {
		}
	}
}

// RemoveUnread is Remove for a mangle table that can't be read.
func (r *Runner) RemoveUnread(ctx context.Context, o *Observer) (Change, error) {
	chains, err := o.Chains()
	if err != nil {
		return Change{}, err
	}
	names := r.Own(chains)
	if len(names) == 0 {
		return Change{}, nil
	}
	have := Unread(names, Rules{}, Rules{}, r.backend, r.family, Table{})
	change := Diff(have, Table{})
	if r.backend == NFT {
		if err := o.Unhook(r.family, r.prefix, nil); err != nil {
			return Change{}, fmt.Errorf("deleting the hooks in the %s table: %w", r.table, err)
		}
	} else {
		r.deleteCopies(ctx, anyHooks(r.prefix))
	}
	if err := r.Apply(ctx, change); err != nil {
		return Change{}, err
	}
	return change, nil
}

// Own returns the names of Moat's chains in the runner's table.
func (r *Runner) Own(chains []Chain) []string {
	var names []string
	for _, chain := range chains {
		if chain == (Chain{r.backend, r.family.String(), r.table, chain.Name}) && owned(chain.Name, r.prefix) {
			names = append(names, chain.Name)
		}
	}
	return names
}

// Remove takes Moat's chains and hooks, if there are any, out of the table
// and leaves the rest of it. It makes no table where there is none. It returns the change that it
// made, which is empty where there was nothing to remove.
func (r *Runner) Remove(ctx context.Context) (Change, error) {
	change, err := r.Remains(ctx)
	if err != nil || change.Empty() {
		return Change{}, err
	}
	if err := r.Apply(ctx, change); err != nil {
		return Change{}, err
	}
	return change, nil
}

// Remains returns what Remove would do.
func (r *Runner) Remains(ctx context.Context) (Change, error) {
	if r.backend == Legacy && !slices.Contains(legacyTables(r.family), r.table) {
		return Change{}, nil
	}
	table, err := r.Read(ctx)
	if err != nil {
		return Change{}, err
	}
	return Diff(table, Table{}), nil
}

// ForeignUses returns the rules of other programs, in all tables that exist,
// that name one of Moat's chains or a set with the prefix, as iptables-save prints
// them. While they are there, the kernel refuses to remove what they name.
func (r *Runner) ForeignUses(ctx context.Context, setPrefix string) ([]string, error) {
	if r.backend == Legacy && len(legacyTables(r.family)) == 0 {
		return nil, nil
	}
	output, err := run(ctx, r.Timeout, "", r.save)
	if err != nil {
		return nil, fmt.Errorf("reading all tables: %w", err)
	}
	return ForeignUses(output, r.prefix, setPrefix), nil
}
