package compile

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Output is what one family needs in the kernel.
type Output struct {
	Ruleset ruleset.Ruleset

	// Peers says which pods the sets of Ruleset hold that have no fixed members,
	// by the name of the set.
	Peers map[string]policy.PeerSet

	// Origins lists for each profile chain the policies whose rules it holds: what it drops,
	// none of them allows. Together with the Reason of the rule that drops, the chain says why
	// a packet was dropped. Drops of other chains are no policy's.
	Origins map[string][]*policy.Policy

	// Isolated holds the addresses of the node's isolated pods, for each
	// direction. They live in the sets IsolatedSet names.
	Isolated [policy.Directions]ruleset.Members

	// Local holds the addresses of the node's known pods. They live in the set that
	// LocalSet names. It is nil where the family has no guard.
	Local ruleset.Members

	// Foreign holds the addresses of other nodes' pods that the guard spares. They live
	// in the set that ForeignSet names. It is nil where the family has no guard.
	Foreign ruleset.Members

	// TunnelEnds are the addresses that tunnels lead to. They live in the set that TunnelSet
	// names. It is nil where no rule is about tunnels.
	TunnelEnds ruleset.Members

	// Cuts are the members of the sets that CutSet names: see Cut.
	Cuts Cuts

	// Names says what the names of Ruleset stand for.
	Names Names

	// Clashing are the policies that need a set or chain whose name another content has.
	// What needs it allows nothing.
	Clashing []*policy.Policy
}

// Compile returns the state of one family on a host: for the given endpoints, the links that
// lead to them, and the guard of the node's other addresses. The zero value of Host is one of
// which nothing else is known.
func Compile(host Host, family ruleset.Family, endpoints []policy.Endpoint, links Links, guard Guard) Output {
	return compileNaming(digestName, host, family, endpoints, links, guard)
}

func compileNaming(digest func(Content) string, host Host, family ruleset.Family, endpoints []policy.Endpoint, links Links, guard Guard) Output {
	c := &compiler{
		host:     host,
		digest:   digest,
		held:     host.Held,
		names:    Names{},
		family:   family,
		links:    links,
		guard:    guard,
		chains:   map[string]ruleset.Chain{},
		sets:     map[string]ruleset.Set{},
		peers:    map[string]policy.PeerSet{},
		rules:    map[ruleKey][]textRule{},
		blocks:   map[*policy.Rule][]netip.Prefix{},
		named:    map[*policy.Policy]map[portName]struct{}{},
		profiles: map[profileKey]string{},
		origins:  map[string][]*policy.Policy{},
	}
	out := Output{
		Peers: c.peers, Local: c.local(), Foreign: c.foreign(), TunnelEnds: c.tunnelEnds(), Origins: c.origins, Names: c.names,
	}
	for d := range policy.Direction(policy.Directions) {
		out.Isolated[d] = c.direction(d, endpoints)
	}
	c.judgesErrors = len(out.Isolated[policy.Ingress]) > 0 || len(out.Isolated[policy.Egress]) > 0 || links.Closed()
	c.addChain(ForwardChain, c.forward()...)
	c.addChain(InputChain, c.input()...)
	c.linkChain()
	c.guardChain()
	c.tunnelChain()
	c.errorChain()
	c.earlyChain()
	match := []ruleset.Match{ruleset.UnestablishedMatch{}}
	if c.judgesErrors {
		match = nil
	}
	out.Ruleset = ruleset.Ruleset{
		Family: family,
		Hooks:  append(hooks(match...), c.earlyHook()),
		Chains: sortedValues(c.chains),
		Sets:   sortedValues(c.sets),
	}
	out.Clashing = c.clashing
	return out
}

type compiler struct {
	host     Host
	family   ruleset.Family
	links    Links
	guard    Guard
	chains   map[string]ruleset.Chain
	sets     map[string]ruleset.Set
	peers    map[string]policy.PeerSet
	rules    map[ruleKey][]textRule
	blocks   map[*policy.Rule][]netip.Prefix // what is left of a rule's blocks
	named    map[*policy.Policy]map[portName]struct{}
	profiles map[profileKey]string
	origins  map[string][]*policy.Policy

	digest   func(Content) string
	held     Names
	names    Names
	clash    bool // a content got no name since the last noteClash
	clashing []*policy.Policy

	// judgesErrors says that there are isolated pods or closed links. Then packets of open
	// connections, and errors about them, come to the chains too.
	judgesErrors bool
}

func (c *compiler) addChain(name string, rules ...ruleset.Rule) {
	c.chains[name] = ruleset.Chain{Name: name, Rules: rules}
}

// addSet declares a set of the family.
func (c *compiler) addSet(set ruleset.Set) {
	set.Family = c.family
	c.sets[set.Name] = set
}

func sortedValues[V any](m map[string]V) []V {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	values := make([]V, len(names))
	for i, name := range names {
		values[i] = m[name]
	}
	return values
}

// hooks leads the packets that match to the chains. Nearly all packets belong to connections
// that were let through, and need not go there.
func hooks(match ...ruleset.Match) []ruleset.Hook {
	return []ruleset.Hook{
		{Builtin: "FORWARD", Match: match, Chain: ForwardChain},
		{Builtin: "INPUT", Match: match, Chain: InputChain},
	}
}

// forward filters packets that the node routes or bridges. A packet to an isolated pod ends
// here once the pod's rules let it pass: its destination is an address that the API knows, so
// the link rules behind don't concern it.
func (c *compiler) forward() []ruleset.Rule {
	return slices.Concat(c.passing(), c.tunnelJumps(c.toTunnelEnds()), c.advertisements(), c.discovery(neighbours...),
		c.guardJumps(policy.Egress), c.guardJumps(policy.Ingress), c.linkJumps(policy.Egress),
		[]ruleset.Rule{c.dispatch(policy.Egress, ruleset.Jump), c.dispatch(policy.Ingress, ruleset.Goto)},
		c.linkJumps(policy.Ingress))
}

// input filters what pods send to their own node. What the node sends to its own
// pods, such as the kubelet's probes, is never filtered, so there is no output
// chain.
func (c *compiler) input() []ruleset.Rule {
	return slices.Concat(c.passing(), c.toThisNetwork(), c.tunnelJumps(), c.discovery(slices.Concat(routerSolicitation, neighbours)...), c.guardJumps(policy.Egress),
		c.linkJumps(policy.Egress), []ruleset.Rule{c.dispatch(policy.Egress, ruleset.Goto)})
}

// dispatch sends the packets of isolated pods to their direction's chain. After a Jump, the
// packets that return meet the next rule; after a Goto they don't.
func (c *compiler) dispatch(d policy.Direction, action ruleset.Action) ruleset.Rule {
	return ruleset.Rule{Match: []ruleset.Match{c.isolated(d)}, Action: action, Target: directionChain(d)}
}

// isolated matches the packets of isolated pods in a direction.
func (c *compiler) isolated(d policy.Direction) ruleset.Match {
	name := IsolatedSet(c.family, d)
	c.addSet(ruleset.Set{Name: name, Type: ruleset.HashIP, Entering: ruleset.Closes})
	return ruleset.SetMatch{Set: name, Type: ruleset.HashIP, Side: subjectSide(d)}
}

// direction builds the dispatch tree and the profile chains of one direction, and returns the
// isolated addresses.
func (c *compiler) direction(d policy.Direction, endpoints []policy.Endpoint) ruleset.Members {
	isolated := ruleset.Members{}
	profiles := map[netip.Addr][]string{}
	for i := range endpoints {
		e := &endpoints[i]
		if !e.Isolated(d) {
			continue
		}
		var profile string
		for _, addr := range e.Pod.Addrs {
			if !c.family.Holds(addr) {
				continue
			}
			if profile == "" {
				profile = c.profile(d, e)
			}
			isolated[ruleset.Address(addr)] = struct{}{}
			profiles[addr] = append(profiles[addr], profile)
		}
	}
	addrs := slices.SortedFunc(maps.Keys(profiles), netip.Addr.Compare)
	// Only packets of isolated pods come here. One whose pod isn't found must not pass.
	tree := addressTree{family: c.family, side: subjectSide(d), rest: drop(ruleset.NotProgrammed), add: c.addChain, rules: func(addr netip.Addr) []ruleset.Rule {
		return c.dispatchRules(d, addr, profiles[addr])
	}}
	tree.grow(directionChain(d), addrs, 0)
	return isolated
}

// dispatchRules let a pod talk to itself, through its own Service too, and send its
// other packets to its profile. Where several pods own one address, the packet
// has to come back from each profile but the last.
func (c *compiler) dispatchRules(d policy.Direction, addr netip.Addr, profiles []string) []ruleset.Rule {
	rules := []ruleset.Rule{{Match: c.toItself(addr), Action: ruleset.Return}}
	subject := []ruleset.Match{ruleset.HostMatch(subjectSide(d), addr)}
	last := len(profiles) - 1
	for _, profile := range profiles[:last] {
		rules = append(rules, ruleset.Rule{Match: subject, Action: ruleset.Jump, Target: profile})
	}
	return append(rules, ruleset.Rule{Match: subject, Action: ruleset.Goto, Target: profiles[last]})
}

// profile returns the chain that holds the rules of the endpoint's policies. It makes the
// chain for the first pod that has these rules.
func (c *compiler) profile(d policy.Direction, e *policy.Endpoint) string {
	var text strings.Builder
	keys := make([]ruleKey, len(e.Isolating[d]))
	for i, p := range e.Isolating[d] {
		keys[i] = ruleKey{p, d, c.resolvedPorts(d, p, e.Pod)}
		fmt.Fprintf(&text, "%s %s\n", p.Key(), keys[i].ports)
	}
	alike := profileKey{d, text.String()}
	name, known := c.profiles[alike]
	if !known {
		name = c.makeProfile(d, keys, e.Pod)
		c.noteClash(e.Isolating[d]...)
		c.profiles[alike] = name
		c.origins[name] = append(c.origins[name], e.Isolating[d]...)
	}
	return name
}

// profileKey identifies the pods that are isolated by the same policies and
// resolve their named ports alike.
type profileKey struct {
	direction policy.Direction
	policies  string
}

// makeProfile joins the rules of policies. They are one stage: all of them allow.
func (c *compiler) makeProfile(d policy.Direction, policies []ruleKey, pod *policy.Pod) string {
	var all []textRule
	seen := map[string]bool{}
	for _, key := range policies {
		for _, r := range c.policyRules(key, pod) {
			if !seen[r.text] {
				seen[r.text] = true
				all = append(all, r)
			}
		}
	}
	cheapestFirst(all)
	rules := make([]ruleset.Rule, 0, len(all)+1)
	var content strings.Builder
	rest := drop(ruleset.NotAllowed)
	for _, r := range append(all, textRule{rest, ruleText(rest)}) {
		rules = append(rules, r.rule)
		content.WriteString(r.text)
	}
	name, free := c.take(profileChain(d), content.String())
	if !free {
		name, rules = closedChain(d), []ruleset.Rule{drop(ruleset.NameTaken)}
	}
	c.addChain(name, rules...)
	return name
}

// cheapestFirst sorts rules by cost. It is for the rules of one stage that all do the same with
// a packet. Where some allow and some deny, their order decides, and none may be moved.
func cheapestFirst(rules []textRule) {
	slices.SortStableFunc(rules, func(a, b textRule) int { return cmp.Compare(cost(&a.rule), cost(&b.rule)) })
}

// cost ranks rules by the kernel's work for a packet that they don't match. For a packet of
// another protocol, the kernel compares the protocol alone. A set of prefixes costs one look-up
// for each length of its prefixes.
func cost(rule *ruleset.Rule) int {
	cost := 0
	for _, match := range rule.Match {
		if _, ok := match.(ruleset.ProtocolMatch); ok {
			cost--
		}
		if m, ok := match.(ruleset.SetMatch); ok {
			cost += 2
			if m.Type == ruleset.HashNet {
				cost += 2
			}
		}
	}
	return cost
}

// ruleKey identifies the rules of one policy for the pods that resolve its named
// ports alike.
type ruleKey struct {
	policy    *policy.Policy
	direction policy.Direction
	ports     string
}

// textRule is a rule with its ruleText, by which equal rules are found: to compare each of
// 10,000 rules with each other would take minutes.
type textRule struct {
	rule ruleset.Rule
	text string
}

// policyRules returns one rule for each combination of a policy rule's peers and groups of its
// ports.
func (c *compiler) policyRules(key ruleKey, pod *policy.Pod) []textRule {
	rules, known := c.rules[key]
	if known {
		return rules
	}
	allowing := key.policy.Rules[key.direction]
	for i := range allowing {
		for _, match := range c.allowed(key.direction, &allowing[i], pod) {
			rule := ruleset.Rule{Match: match, Action: ruleset.Return}
			rules = append(rules, textRule{rule, ruleText(rule)})
		}
	}
	c.noteClash(key.policy)
	c.rules[key] = rules
	return rules
}
