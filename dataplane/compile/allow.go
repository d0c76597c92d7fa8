package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// match is a list of conditions that all hold.
type match = []ruleset.Match

// allowed returns what a rule allows, as alternatives. A rule without alternatives allows
// nothing in this family.
func (c *compiler) allowed(d policy.Direction, r *policy.Rule, pod *policy.Pod) []match {
	var alternatives []match
	// A rule without a port makes no rule here, and so its peers need no sets.
	if ports := c.portMatches(d, r, pod); len(ports) > 0 {
		for _, peer := range c.peerMatches(d, r) {
			for _, port := range ports {
				alternatives = append(alternatives, slices.Concat(port, peer))
			}
		}
	}
	if d == policy.Egress {
		alternatives = append(alternatives, c.namedEgress(r)...)
	}
	return alternatives
}

// peerMatches returns one alternative for each pod peer and one for all blocks
// together.
func (c *compiler) peerMatches(d policy.Direction, r *policy.Rule) []match {
	if r.AnyPeer {
		return []match{nil}
	}
	var alternatives []match
	for _, peer := range r.Peers {
		if peer.Pods != nil {
			alternatives = append(alternatives, c.peerSet(peerSide(d), policy.PeerSet{Pods: *peer.Pods})...)
		}
	}
	return append(alternatives, c.blockMatches(peerSide(d), r)...)
}

// peerSet declares a set that follows pods and returns its look-up, as one alternative. It
// returns none where the set's name stands for another set.
func (c *compiler) peerSet(side ruleset.Side, peers policy.PeerSet) []match {
	name, free := c.take(c.peerSetName, peers.Key())
	if !free {
		return nil
	}
	setType := ruleset.HashIP
	if peers.PortName != "" {
		setType = ruleset.HashIPPort
	}
	c.peers[name] = peers
	c.addSet(ruleset.Set{Name: name, Type: setType, Entering: ruleset.Opens})
	return []match{{ruleset.SetMatch{Set: name, Type: setType, Side: side}}}
}

// blockMatches returns at most one alternative: the union of all blocks, each without its
// exceptions, as disjoint prefixes. The kernel's "nomatch" entries can't express that union.
func (c *compiler) blockMatches(side ruleset.Side, r *policy.Rule) []match {
	prefixes, known := c.blocks[r]
	if !known {
		prefixes = policy.Union(r.Peers, c.family.Holds).Prefixes()
		c.blocks[r] = prefixes
	}
	switch {
	case len(prefixes) == 0:
		return nil
	case len(prefixes) == 1 && prefixes[0].Bits() == 0:
		return []match{nil}
	case len(prefixes) == 1:
		return []match{{ruleset.PrefixMatch(side, prefixes[0])}}
	}
	name, free := c.take(c.prefixSetName, fmt.Sprint(prefixes))
	if !free {
		return nil
	}
	members := ruleset.Members{}
	for _, prefix := range prefixes {
		members[ruleset.Member{Prefix: prefix}] = struct{}{}
	}
	c.addSet(ruleset.Set{Name: name, Type: ruleset.HashNet, Entering: ruleset.Opens, Members: members})
	return []match{{ruleset.SetMatch{Set: name, Type: ruleset.HashNet, Side: side}}}
}

// portMatches returns one alternative for each protocol, or more where a rule's
// ports don't fit into one multiport match. It leaves out named ports of egress rules: see
// namedEgress.
func (c *compiler) portMatches(d policy.Direction, r *policy.Rule, pod *policy.Pod) []match {
	if r.AnyPort {
		return []match{nil}
	}
	ranges := map[policy.Protocol][]ruleset.PortRange{}
	for _, port := range r.Ports {
		first, last := port.First, port.Last
		if port.Name != "" {
			number, served := pod.Resolve(port.Name, port.Protocol)
			if d == policy.Egress || !served {
				continue
			}
			first, last = number, number
		}
		ranges[port.Protocol] = append(ranges[port.Protocol], ruleset.PortRange{First: first, Last: last})
	}
	var alternatives []match
	for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
		for _, group := range groupRanges(mergeRanges(ranges[protocol])) {
			alternatives = append(alternatives, portMatch(protocol, group))
		}
	}
	return alternatives
}

func portMatch(protocol policy.Protocol, group []ruleset.PortRange) match {
	m := match{ruleset.ProtocolMatch{Protocol: uint8(protocol)}}
	if group[0] == (ruleset.PortRange{First: 0, Last: 65535}) {
		return m
	}
	return append(m, ruleset.PortMatch{Ranges: group})
}

// mergeRanges sorts ranges and joins those that overlap or touch.
func mergeRanges(ranges []ruleset.PortRange) []ruleset.PortRange {
	slices.SortFunc(ranges, func(a, b ruleset.PortRange) int { return cmp.Compare(a.First, b.First) })
	var merged []ruleset.PortRange
	for _, r := range ranges {
		last := len(merged) - 1
		if last >= 0 && int(r.First) <= int(merged[last].Last)+1 {
			merged[last].Last = max(merged[last].Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// groupRanges cuts ranges into groups that fit one multiport match each.
func groupRanges(ranges []ruleset.PortRange) [][]ruleset.PortRange {
	var groups [][]ruleset.PortRange
	slots := ruleset.MaxPortSlots
	for _, r := range ranges {
		slots += r.Slots()
		if slots > ruleset.MaxPortSlots {
			groups, slots = append(groups, nil), r.Slots()
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], r)
	}
	return groups
}

// namedEgress allows the named ports of destination pods. The name is resolved
// on each of them, so a set holds pairs of address and port: a union of numbers
// would open one pod's port on another.
func (c *compiler) namedEgress(r *policy.Rule) []match {
	var alternatives []match
	for _, port := range r.Ports {
		if port.Name == "" {
			continue
		}
		served := func(pods policy.PodPeer) []match {
			return c.peerSet(ruleset.Destination, policy.PeerSet{Pods: pods, PortName: port.Name, Protocol: port.Protocol})
		}
		if r.AnyPeer {
			alternatives = append(alternatives, served(policy.EveryPod())...)
			continue
		}
		for _, peer := range r.Peers {
			if peer.Pods != nil {
				alternatives = append(alternatives, served(*peer.Pods)...)
			}
		}
		for _, block := range c.blockMatches(ruleset.Destination, r) {
			for _, every := range served(policy.EveryPod()) {
				alternatives = append(alternatives, slices.Concat(block, every))
			}
		}
	}
	return alternatives
}

// resolvedPorts lists the numbers that the policy's named ports have on the pod:
// the part of a profile that differs between pods of the same policies. It leaves out names that
// the pod doesn't serve: a policy may have thousands of names, and a node hundreds of pods.
func (c *compiler) resolvedPorts(d policy.Direction, p *policy.Policy, pod *policy.Pod) string {
	if d == policy.Egress {
		return ""
	}
	named, known := c.named[p]
	if !known {
		named = namesOf(p.Rules[d])
		c.named[p] = named
	}
	var resolved strings.Builder
	for _, port := range pod.Ports {
		if _, asked := named[portName{port.Name, port.Protocol}]; asked {
			number, _ := pod.Resolve(port.Name, port.Protocol)
			fmt.Fprintf(&resolved, "%s/%d=%d,", port.Name, port.Protocol, number)
		}
	}
	return resolved.String()
}

// portName is a port as a policy names it.
type portName struct {
	name     string
	protocol policy.Protocol
}

func namesOf(rules []policy.Rule) map[portName]struct{} {
	names := map[portName]struct{}{}
	for i := range rules {
		for _, port := range rules[i].Ports {
			if port.Name != "" {
				names[portName{port.Name, port.Protocol}] = struct{}{}
			}
		}
	}
	return names
}
