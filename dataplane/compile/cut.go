package compile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// CutCause is why established connections are cut.
type CutCause uint8

// The causes.
const (
	// ByPolicy: policies of a pod at an end forbid them.
	ByPolicy CutCause = iota

	// ByLink: an end has a link-local address, and Links closes such addresses. The kernel's
	// table doesn't say which link a connection uses. So its packets are dropped on the closed
	// links alone, as those of new connections are: on another link, the address isn't a pod's.
	ByLink

	// CutCauses is their number.
	CutCauses
)

// Cuts are the classes of established connections that are cut, as members of the
// sets that CutSet names. Where one is nil there is no set and no rule: while nothing is cut,
// packets must not cost a look-up.
type Cuts [CutCauses]ruleset.Members

// CutSet is the name of a set of connections that are cut. Each member stands for
// all connections from one client to one port of one server.
func CutSet(family ruleset.Family, cause CutCause) string {
	name := fmt.Sprintf("%s%d-cut", SetPrefix, family)
	if cause == ByLink {
		name += "-link"
	}
	return name
}

// Cut adds the rules that drop packets of cut connections, in both directions, and leads
// packets of established connections to them. The links are those that the output was compiled
// with. Where none of them is closed, no connection is cut by link.
func (o *Output) Cut(cuts Cuts, links Links) {
	answers := links.answers(o.Ruleset.Family)
	if len(answers) == 0 {
		cuts[ByLink] = nil
	}
	o.Cuts = cuts
	if cuts[ByPolicy] == nil && cuts[ByLink] == nil {
		return
	}
	o.takeEstablished()
	if cuts[ByPolicy] != nil {
		o.cut(ByPolicy, drop(ruleset.Cut), drop(ruleset.Cut))
	}
	if cuts[ByLink] != nil {
		o.cut(ByLink, jump(LinkChain), jump(AnswerChain))
		o.Ruleset.Chains = append(o.Ruleset.Chains, ruleset.Chain{Name: AnswerChain, Rules: answers})
		slices.SortFunc(o.Ruleset.Chains, func(a, b ruleset.Chain) int { return strings.Compare(a.Name, b.Name) })
	}
}

// cut adds rules for one cause: forth for packets to the servers, back for packets to the
// clients.
func (o *Output) cut(cause CutCause, forth, back ruleset.Rule) {
	name := CutSet(o.Ruleset.Family, cause)
	o.Ruleset.Sets = append(slices.Clone(o.Ruleset.Sets), ruleset.Set{
		Name: name, Type: ruleset.HashIPPortIP, Family: o.Ruleset.Family, Entering: ruleset.Closes,
	})
	slices.SortFunc(o.Ruleset.Sets, func(a, b ruleset.Set) int { return strings.Compare(a.Name, b.Name) })

	// The kernel compares from left to right, and the state of a connection costs less than
	// the look-up in a set.
	late := back
	forth.Match = ofCut(name, ruleset.Source, ruleset.ConnectionMatch{Opener: ruleset.Source})
	back.Match = ofCut(name, ruleset.Destination, ruleset.ConnectionMatch{Opener: ruleset.Destination})
	// After conntrack has forgotten a connection, a packet that the server repeats would
	// open one from the server to the client.
	late.Match = ofCut(name, ruleset.Destination, ruleset.ProtocolMatch{Protocol: uint8(policy.TCP)}, ruleset.MidStreamMatch{})
	o.prepend(ForwardChain, forth, back, late)
	// The node's answers go through OUTPUT, where Moat has no hook. But where the kernel picked
	// a connection up with the node's answer, it takes the pod's packets for the replies.
	input := []ruleset.Rule{forth}
	if cause == ByPolicy {
		input = append(input, back)
	}
	o.prepend(InputChain, input...)
}

// ofCut matches packets of cut connections, whose client is on the given side.
func ofCut(set string, client ruleset.Side, match ...ruleset.Match) []ruleset.Match {
	return append(match, ruleset.SetMatch{Set: set, Type: ruleset.HashIPPortIP, Side: client})
}

func jump(chain string) ruleset.Rule { return ruleset.Rule{Action: ruleset.Jump, Target: chain} }

// answers returns the rules that drop, on the way back, what the link chain drops on the way to
// the server: packets to a link-local client on links of pods that may not send everything, and
// packets from a link-local server on links of pods that may not receive everything.
func (l Links) answers(family ruleset.Family) []ruleset.Rule {
	if family != ruleset.IPv6 {
		return nil
	}
	var rules []ruleset.Rule
	for d := range policy.Direction(policy.Directions) {
		for _, link := range l[d] {
			behind := ruleset.InterfaceMatch{Side: peerSide(d), Name: link}
			rules = append(rules, drop(ruleset.Cut, ruleset.PrefixMatch(peerSide(d), linkLocal), behind))
		}
	}
	return rules
}

// takeEstablished leads the packets of established connections to the chains too, unless they
// come there already. It begins the chains with a rule by which these packets return; rules that
// judge them are prepended later.
func (o *Output) takeEstablished() {
	hooks, took := slices.Clone(o.Ruleset.Hooks), false
	for i := range hooks {
		if h := &hooks[i]; (h.Chain == ForwardChain || h.Chain == InputChain) && len(h.Match) > 0 {
			h.Match, took = nil, true
		}
	}
	if !took {
		return
	}
	o.Ruleset.Hooks = hooks
	pass := ruleset.Rule{Match: []ruleset.Match{ruleset.EstablishedMatch{}}, Action: ruleset.Return}
	o.prepend(ForwardChain, pass)
	o.prepend(InputChain, pass)
}

func (o *Output) prepend(chain string, rules ...ruleset.Rule) {
	o.Ruleset.Chains = slices.Clone(o.Ruleset.Chains)
	for i := range o.Ruleset.Chains {
		if c := &o.Ruleset.Chains[i]; c.Name == chain {
			c.Rules = slices.Concat(rules, c.Rules)
		}
	}
}
