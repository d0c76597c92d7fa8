package iptables

import (
	"fmt"
	"maps"
	"slices"
	"strings"
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

// Empty reports whether there is nothing to do.
func (c *Change) Empty() bool {
	return len(c.Write) == 0 && len(c.Delete) == 0 && len(c.Rehook) == 0
}

// Script returns the change of the mangle table as one transaction for
// iptables-restore --noflush.
//
// Within it, all of Moat's chains that change are emptied or made first, so that
// no rule names a chain that doesn't exist. A hook is moved by deleting every
// copy of it by its text and inserting it again at the front: a position could
// point at somebody else's rule by the time that the transaction runs. If a copy
// has gone by then, the transaction fails as a whole and is computed anew.
func (c *Change) Script() string { return c.script(tableName) }

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

// Missing returns what is left to do if the table is as given.
func (c *Change) Missing(have Table) Change { return Diff(have, c.want) }

// String lists what the change touches.
func (c Change) String() string {
	return strings.Join(slices.Concat(c.Write, c.Delete, c.Rehook), ", ")
}
