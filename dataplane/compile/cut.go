package compile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// CutSet is the name of the set of connections that are cut. Each member stands for
// all connections from one client to one port of one server.
func CutSet(family ruleset.Family) string { return fmt.Sprintf("%s%d-cut", SetPrefix, family) }

// Cut adds what drops the packets of established connections in both directions, and
// leads such packets to it. For nil it adds nothing: where nothing is cut for long, no
// packet is to be asked.
func (o *Output) Cut(members ruleset.Members) {
	if members == nil {
		return
	}
	o.Cuts = members
	name := CutSet(o.Ruleset.Family)
	o.Ruleset.Sets = append(slices.Clone(o.Ruleset.Sets), ruleset.Set{Name: name, Type: ruleset.HashIPPortIP, Family: o.Ruleset.Family})
	slices.SortFunc(o.Ruleset.Sets, func(a, b ruleset.Set) int { return strings.Compare(a.Name, b.Name) })

	// The kernel compares from left to right, and to look at the state of a
	// connection costs less than to look in a set.
	forth := dropCut(name, ruleset.Source, ruleset.ConnectionMatch{Opener: ruleset.Source})
	back := dropCut(name, ruleset.Destination, ruleset.ConnectionMatch{Opener: ruleset.Destination})
	// Once conntrack has forgotten a connection, a packet that the server sends once
	// more would begin one from the server to the client.
	late := dropCut(name, ruleset.Destination, ruleset.ProtocolMatch{Protocol: uint8(policy.TCP)}, ruleset.MidStreamMatch{})
	pass := ruleset.Rule{Match: []ruleset.Match{ruleset.EstablishedMatch{}}, Action: ruleset.Return}
	o.prepend(ForwardChain, forth, back, late, pass)
	// What the node answers goes through OUTPUT, where Moat has no hook.
	o.prepend(InputChain, forth, pass)
	o.Ruleset.Hooks = hooks()
}

// dropCut drops packets whose client is on the given side.
func dropCut(set string, client ruleset.Side, match ...ruleset.Match) ruleset.Rule {
	look := ruleset.SetMatch{Set: set, Type: ruleset.HashIPPortIP, Side: client}
	return ruleset.Rule{Match: append(match, look), Action: ruleset.Drop}
}

func (o *Output) prepend(chain string, rules ...ruleset.Rule) {
	o.Ruleset.Chains = slices.Clone(o.Ruleset.Chains)
	for i := range o.Ruleset.Chains {
		if c := &o.Ruleset.Chains[i]; c.Name == chain {
			c.Rules = slices.Concat(rules, c.Rules)
		}
	}
}
