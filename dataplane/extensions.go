package dataplane

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// extensions says what of compile.Extensions the node's kernel and the agent's programs lack.
type extensions struct {
	runners map[ruleset.Family]*iptables.Runner // those that were asked
	lacks   map[ruleset.Family][]compile.Extension
	unsure  kernel.FamilyErrors // why a probe said neither yes nor no

	// ports says that rules tell ports of bridges apart; asked, that this was so when the
	// runners were asked.
	ports, asked bool
}

// settled reports whether the runners were asked and nothing is lacking. What lacks now may
// be loaded later.
func (x *extensions) settled(runners map[ruleset.Family]*iptables.Runner) bool {
	return maps.Equal(x.runners, runners) && len(x.lacks) == 0 && len(x.unsure) == 0 && x.ports == x.asked
}

// probe asks the runners, unless that is settled, and reports whether the answer differs from
// the last. What isn't known counts as lacking: a rule with it could make a whole restore fail.
func (x *extensions) probe(ctx context.Context, runners map[ruleset.Family]*iptables.Runner) (changed bool) {
	if x.settled(runners) {
		return false
	}
	before := x.lacks
	x.runners, x.lacks, x.unsure, x.asked = maps.Clone(runners), map[ruleset.Family][]compile.Extension{}, kernel.FamilyErrors{}, x.ports
	for family, runner := range runners {
		lacks, err := lackingOf(ctx, x.uses(family), runner)
		if err != nil {
			x.unsure[family] = err
		}
		if len(lacks) > 0 {
			x.lacks[family] = lacks
		}
	}
	return !maps.EqualFunc(before, x.lacks, slices.Equal)
}

// uses returns the extensions that rules of a family use now.
func (x *extensions) uses(family ruleset.Family) map[compile.Extension][]ruleset.Match {
	uses := compile.Extensions(family)
	if x.ports {
		maps.Copy(uses, compile.BridgePorts())
	}
	return uses
}

// probe asks what the kernel and the programs lack, where the kernel is read anyway or rules
// come to use more, and has the rules compiled again if the answer differs. Where there is none, as
// while another program holds the lock, the family's rules stay as they are: rules without a
// match would open what those of an agent before this one close.
func (e *enforcer) probe(ctx context.Context) {
	if e.trusted && e.extensions.ports == e.extensions.asked {
		return
	}
	if e.extensions.probe(ctx, e.runners) {
		e.outputs = nil
	}
	maps.Copy(e.broken, e.extensions.unsure)
}

// lackingOf returns the extensions of uses that a family lacks, sorted. It asks for all at once
// first.
func lackingOf(ctx context.Context, uses map[compile.Extension][]ruleset.Match, runner *iptables.Runner) ([]compile.Extension, error) {
	if all, err := runner.Accepts(ctx, slices.Concat(slices.Collect(maps.Values(uses))...)...); all || err != nil {
		if err != nil {
			return slices.Sorted(maps.Keys(uses)), err
		}
		return nil, nil
	}
	var lacks []compile.Extension
	for _, extension := range slices.Sorted(maps.Keys(uses)) {
		accepts, err := runner.Accepts(ctx, uses[extension]...)
		if !accepts {
			lacks = append(lacks, extension)
		}
		if err != nil {
			return lacks, err
		}
	}
	return lacks, nil
}

// String names what is lacking, empty for nothing.
func (x *extensions) String() string {
	var texts []string
	for _, family := range ruleset.Families() {
		if lacks := x.lacks[family]; len(lacks) > 0 {
			texts = append(texts, fmt.Sprintf("%s: %v", family, lacks))
		}
	}
	return strings.Join(texts, "; ")
}
