package compile

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// PodLink is the node's end of the one link that leads to a pod.
type PodLink struct {
	Name   string
	Bridge string       // that the link is a port of; empty where the node routes to it
	Addrs  []netip.Addr // all addresses of the pod, without link-local ones
	Exempt bool         // the pod may send from any address
}

// Sources says by which links pods send. By that, rules find packets whose source isn't an
// address of the pod that sends. The zero value judges no packet.
//
// Each packet that a pod sends costs a way through a dispatch tree of addresses and the
// comparison with one link. Only a packet that fails there costs a way through a tree of links:
// it was forged, or its pod is exempt or has no link here.
type Sources struct {
	Links []PodLink

	// Forged is what happens to a forged packet after it is counted: Return or Drop.
	Forged ruleset.Action
}

const (
	// SourceChain compares a packet's source with the link that its pod has.
	SourceChain = ChainPrefix + "SOURCE"

	// OriginChain finds the link of a packet whose source is not that link's.
	OriginChain = ChainPrefix + "ORIGIN"

	// ForgedChain counts forged packets, and drops them if Sources.Forged says so.
	ForgedChain = ChainPrefix + "FORGED"

	// gatePrefix is a number of characters: links whose names have so many in common share a
	// rule that leads to SourceChain. Networks give pods' links such a prefix: veth, cali, eni.
	gatePrefix = 3

	// gatesMost is the most rules that lead to SourceChain. Where more were needed, all packets
	// go there.
	gatesMost = 16

	dhcpServer = 67
)

// IsSourceChain reports whether a chain only judges sources.
func IsSourceChain(name string) bool {
	return name == ForgedChain || strings.HasPrefix(name, SourceChain) || strings.HasPrefix(name, OriginChain)
}

// JudgeSources adds the rules that count or drop forged packets, ahead of all other rules. In
// a family that lacks BridgePort, it leaves out links that are ports of bridges.
func (o *Output) JudgeSources(sources Sources, lacks []Extension) {
	links := slices.Clone(sources.Links)
	if slices.Contains(lacks, BridgePort) {
		links = slices.DeleteFunc(links, func(l PodLink) bool { return l.Bridge != "" })
	}
	if !slices.ContainsFunc(links, func(l PodLink) bool { return !l.Exempt }) {
		return
	}
	slices.SortFunc(links, func(a, b PodLink) int { return cmp.Compare(a.Name, b.Name) })
	o.takeEstablished()
	var gates []ruleset.Rule
	for _, match := range gatesTo(links) {
		gates = append(gates, ruleset.Rule{Match: match, Action: ruleset.Jump, Target: SourceChain})
	}
	o.prepend(ForwardChain, gates...)
	o.prepend(InputChain, gates...)
	chains := map[string]ruleset.Chain{}
	add := func(name string, rules ...ruleset.Rule) { chains[name] = ruleset.Chain{Name: name, Rules: rules} }
	sourceTree(o.Ruleset.Family, links, add)
	add(OriginChain, slices.Concat(unaddressed(o.Ruleset.Family, links), origins(links, add))...)
	add(ForgedChain, sources.forged())
	o.Ruleset.Chains = slices.Concat(o.Ruleset.Chains, sortedValues(chains))
	slices.SortFunc(o.Ruleset.Chains, func(a, b ruleset.Chain) int { return cmp.Compare(a.Name, b.Name) })
}

// forged is what happens to forged packets.
func (s *Sources) forged() ruleset.Rule {
	if s.Forged == ruleset.Return {
		return ruleset.Rule{Action: ruleset.Return}
	}
	return drop(ruleset.ForgedSource)
}

// gatesTo returns matches for the packets of the links. Few other packets match.
func gatesTo(links []PodLink) []match {
	names := map[string]bool{}
	groups := map[string][]string{}
	for _, link := range links {
		if link.Bridge != "" {
			names[link.Bridge] = true
			continue
		}
		prefix := link.Name[:min(gatePrefix, len(link.Name))]
		groups[prefix] = append(groups[prefix], link.Name)
	}
	for _, group := range groups {
		names[commonName(group)] = true
	}
	if len(names) > gatesMost {
		return []match{nil}
	}
	var gates []match
	for _, name := range slices.Sorted(maps.Keys(names)) {
		gates = append(gates, match{byInterface(name)})
	}
	return gates
}

// commonName returns the name by which iptables matches all of the sorted names of interfaces:
// a single name itself, or the beginning of all names and a plus sign.
func commonName(sorted []string) string {
	if len(sorted) == 1 {
		return sorted[0]
	}
	return sorted[0][:commonLength(sorted)] + "+"
}

// commonLength returns how many characters at the beginning are the same in all sorted names.
func commonLength(sorted []string) int {
	first, last := sorted[0], sorted[len(sorted)-1]
	n := 0
	for n < min(len(first), len(last)) && first[n] == last[n] {
		n++
	}
	return n
}

// sourceTree makes SourceChain. A packet that came by a link of its source returns from it. Any
// other packet goes on to OriginChain.
func sourceTree(family ruleset.Family, links []PodLink, add func(string, ...ruleset.Rule)) {
	owners := map[netip.Addr][]ruleset.Rule{}
	for _, link := range links {
		for _, addr := range link.Addrs {
			if family.Holds(addr) {
				own := []ruleset.Match{ruleset.HostMatch(ruleset.Source, addr), link.origin()}
				owners[addr] = append(owners[addr], ruleset.Rule{Match: own, Action: ruleset.Return})
			}
		}
	}
	tree := addressTree{
		family: family, side: ruleset.Source, add: add,
		rules: func(addr netip.Addr) []ruleset.Rule { return owners[addr] },
		rest:  ruleset.Rule{Action: ruleset.Goto, Target: OriginChain},
	}
	tree.grow(SourceChain, slices.SortedFunc(maps.Keys(owners), netip.Addr.Compare), 0)
}

// origin matches packets that came by the link.
func (l *PodLink) origin() ruleset.Match {
	if l.Bridge != "" {
		return byPort(l.Name)
	}
	return byInterface(l.Name)
}

func byPort(name string) ruleset.Match { return ruleset.BridgePortMatch{Name: name} }

func byInterface(name string) ruleset.Match {
	return ruleset.InterfaceMatch{Side: ruleset.Source, Name: name}
}

// unaddressed lets packets pass that come by exempt links, that a host sends before it has an
// address, or that have a link-local source, which the API doesn't know.
func unaddressed(family ruleset.Family, links []PodLink) []ruleset.Rule {
	var rules []ruleset.Rule
	pass := func(match ...ruleset.Match) {
		rules = append(rules, ruleset.Rule{Match: match, Action: ruleset.Return})
	}
	for _, link := range links {
		if link.Exempt {
			pass(link.origin())
		}
	}
	if family == ruleset.IPv6 {
		pass(ruleset.HostMatch(ruleset.Source, netip.IPv6Unspecified()))
		pass(ruleset.PrefixMatch(ruleset.Source, linkLocal))
	} else {
		pass(ruleset.HostMatch(ruleset.Source, netip.IPv4Unspecified()),
			ruleset.ProtocolMatch{Protocol: uint8(policy.UDP)}, ruleset.PortMatch{Ranges: []ruleset.PortRange{{First: dhcpServer, Last: dhcpServer}}})
	}
	return rules
}

// origins leads packets to ForgedChain that came by a link that isn't exempt.
func origins(links []PodLink, add func(string, ...ruleset.Rule)) []ruleset.Rule {
	var ports, interfaces []string
	for _, link := range links {
		switch {
		case link.Exempt:
		case link.Bridge != "":
			ports = append(ports, link.Name)
		default:
			interfaces = append(interfaces, link.Name)
		}
	}
	onPorts, onInterfaces := linkTree{match: byPort, add: add}, linkTree{match: byInterface, add: add}
	return slices.Concat(onPorts.rules(OriginChain+"-P", ports), onInterfaces.rules(OriginChain+"-I", interfaces))
}

// linkTree makes rules that find by few comparisons whether a packet came by one of many links.
// Links whose names begin alike share a chain, which is named for the character behind that
// beginning.
type linkTree struct {
	match func(name string) ruleset.Match
	add   func(chain string, rules ...ruleset.Rule)
}

// rules returns rules for sorted names. The chains below begin with the given name.
func (t *linkTree) rules(chain string, names []string) []ruleset.Rule {
	var rules []ruleset.Rule
	branch := func(target string, names []string) {
		rules = append(rules, ruleset.Rule{Match: []ruleset.Match{t.match(commonName(names))}, Action: ruleset.Goto, Target: target})
	}
	if len(names) <= dispatchMost || len(chain) == longestChain {
		for i := range names {
			branch(ForgedChain, names[i:i+1])
		}
		return rules
	}
	at := commonLength(names)
	for len(names) > 0 {
		n := 1
		for len(names[0]) > at && n < len(names) && names[n][at] == names[0][at] {
			n++
		}
		if n == 1 {
			branch(ForgedChain, names[:1])
		} else {
			below := chain + names[0][at:at+1]
			t.add(below, t.rules(below, names[:n])...)
			branch(below, names[:n])
		}
		names = names[n:]
	}
	return rules
}
