package iptables

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Change is what takes a table from one state to another.
type Change struct {
	// Write lists the chains that are made or rewritten.
	Write []string

	// Delete lists the chains that go.
	Delete []string

	// Rehook lists the built-in chains whose jump is put in order.
	Rehook []string

	have, want Table
}

// Diff compares two states.
func Diff(have, want Table) Change {
	c := Change{have: have, want: want}
	for _, name := range slices.Sorted(maps.Keys(want.Chains)) {
		rules, exists := have.Chains[name]
		if !exists || !slices.Equal(rules, want.Chains[name]) {
			c.Write = append(c.Write, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have.Chains)) {
		if _, keep := want.Chains[name]; !keep {
			c.Delete = append(c.Delete, name)
		}
	}
	for _, builtin := range builtins {
		if !slices.Equal(have.Hooks[builtin], want.Hooks[builtin]) {
			c.Rehook = append(c.Rehook, builtin)
		}
	}
	return c
}

// Rewrite returns the change that writes every chain of a table again, with the rules that it
// has. It changes nothing, and takes as long as the writing takes.
func Rewrite(table Table) Change {
	return Change{Write: slices.Sorted(maps.Keys(table.Chains)), have: table, want: table}
}

// Empty reports whether there is nothing to do.
func (c *Change) Empty() bool {
	return len(c.Write) == 0 && len(c.Delete) == 0 && len(c.Rehook) == 0
}

// script returns the change of a table as one transaction for
// iptables-restore --noflush.
//
// Within it, all of Moat's chains that change are emptied or made first, so that
// no rule names a chain that doesn't exist. A hook is moved by deleting every
// copy of it by its text and inserting it again at the front: a position could
// point at another program's rule by the time that the transaction runs. If a copy
// has gone by then, the transaction fails as a whole, and the next sync computes another.
func (c *Change) script(table string) string {
	var s strings.Builder
	s.WriteString("*" + table + "\n")
	for _, name := range slices.Concat(c.Write, c.Delete) {
		fmt.Fprintf(&s, ":%s - [0:0]\n", name)
	}
	for _, name := range c.Write {
		for _, rule := range c.want.Chains[name] {
			fmt.Fprintf(&s, "-A %s %s\n", name, rule)
		}
	}
	for _, builtin := range c.Rehook {
		for _, hook := range c.have.Hooks[builtin] {
			fmt.Fprintf(&s, "-D %s %s\n", builtin, hook.Rule)
		}
		for _, hook := range c.want.Hooks[builtin] {
			fmt.Fprintf(&s, "-I %s 1 %s\n", builtin, hook.Rule)
		}
	}
	for _, name := range c.Delete {
		fmt.Fprintf(&s, "-X %s\n", name)
	}
	s.WriteString("COMMIT\n")
	return s.String()
}

// assuming returns the change for a table of which the hooks aren't known. It assumes that some
// built-in chains have the wanted hook once, and moves it there. In all other chains it inserts
// the hook.
func (c Change) assuming(present []string) Change {
	hooks := maps.Clone(c.have.Hooks)
	maps.DeleteFunc(hooks, func(builtin string, _ []HookPosition) bool { return slices.Contains(c.Rehook, builtin) })
	for _, builtin := range present {
		hooks[builtin] = c.want.Hooks[builtin]
	}
	c.have.Hooks = hooks
	return c
}

// assumptions lists the changes for all sets of hooks that a table may have, among those that are
// put in order: first the change for all of them, last the one for none.
func (c Change) assumptions() []Change {
	var changes []Change
	for lacking := range 1 << len(c.Rehook) {
		var present []string
		for i, builtin := range c.Rehook {
			if lacking&(1<<i) == 0 {
				present = append(present, builtin)
			}
		}
		changes = append(changes, c.assuming(present))
	}
	return changes
}

// staleHooks returns, for each hook that is put in order, the change that deletes one copy of its
// other form: without the condition of Moat's hooks, or with it. A hook without condition may not
// stay: it leads packets of open connections to the chains, which judge them like new ones.
func (c Change) staleHooks() []Change {
	var stale []Change
	for _, builtin := range c.Rehook {
		for _, hook := range c.want.Hooks[builtin] {
			if strings.HasPrefix(hook.Rule, earlyCondition()) {
				continue // it has no other form
			}
			other, conditional := strings.CutPrefix(hook.Rule, hookCondition())
			if !conditional {
				other = hookCondition() + hook.Rule
			}
			stale = append(stale, deleting(builtin, other))
		}
	}
	return stale
}

// hookCondition is what the rule of a hook begins with while nothing is cut.
func hookCondition() string { return matchWord(ruleset.UnestablishedMatch{}, "") + " " }

// earlyCondition is what the rule of the hook in PREROUTING begins with.
func earlyCondition() string { return matchWord(ruleset.GroupFrameMatch{}, "") + " " }

// hookConditions lists what rules of hooks begin with, other than their jump.
func hookConditions() []string { return []string{hookCondition(), earlyCondition()} }

// deleting is the change that deletes one copy of a hook.
func deleting(builtin, rule string) Change {
	return Change{Rehook: []string{builtin}, have: Table{Hooks: map[string][]HookPosition{builtin: {{Rule: rule}}}}}
}

// anyHooks returns changes that each delete one copy of a hook that Moat may have.
func anyHooks(prefix string) []Change {
	var hooks []Change
	for _, builtin := range builtins {
		jump := "-j " + hooked(builtin, prefix)
		for _, condition := range append(hookConditions(), "") {
			hooks = append(hooks, deleting(builtin, condition+jump))
		}
	}
	return hooks
}

// Missing returns what is left to do if the table is as given.
func (c *Change) Missing(have Table) Change { return Diff(have, c.want) }

// String lists what the change touches.
func (c Change) String() string {
	return strings.Join(slices.Concat(c.Write, c.Delete, c.Rehook), ", ")
}
