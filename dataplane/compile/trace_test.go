package compile_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// packet is the first packet of a connection, as a node's hooks see it.
type packet struct {
	source, destination netip.Addr
	protocol            policy.Protocol
	port                uint16
	icmpType            uint8
}

func (p packet) addr(side ruleset.Side) netip.Addr {
	if side == ruleset.Source {
		return p.source
	}
	return p.destination
}

// tracer walks packets through the chains of one node, as the kernel does.
type tracer struct {
	t      *testing.T
	chains map[string][]ruleset.Rule
	sets   map[string]ruleset.Members
}

func newTracer(t *testing.T, rs *ruleset.Ruleset, sets map[string]ruleset.Members) *tracer {
	tr := &tracer{t: t, chains: map[string][]ruleset.Rule{}, sets: sets}
	for _, chain := range rs.Chains {
		tr.chains[chain.Name] = chain.Rules
	}
	return tr
}

// dropped reports whether the packet ends in the chain or one that it leads to.
// A Goto gives the packet away: what returns from there returns from here.
func (tr *tracer) dropped(chain string, p packet) bool {
	rules, exists := tr.chains[chain]
	if !exists {
		require.FailNow(tr.t, "a rule names a chain that doesn't exist", chain)
	}
	for _, rule := range rules {
		if !tr.matches(rule.Match, p) {
			continue
		}
		switch rule.Action {
		case ruleset.Return:
			return false
		case ruleset.Goto:
			return tr.dropped(rule.Target, p)
		case ruleset.Jump:
			if tr.dropped(rule.Target, p) {
				return true
			}
		default:
			return true
		}
	}
	return false
}

func (tr *tracer) matches(all []ruleset.Match, p packet) bool {
	for _, match := range all {
		if !tr.match(match, p) {
			return false
		}
	}
	return true
}

func (tr *tracer) match(match ruleset.Match, p packet) bool {
	switch m := match.(type) {
	case ruleset.AddressMatch:
		return masked(p.addr(m.Side), m.Mask) == m.Addr
	case ruleset.SetMatch:
		return tr.inSet(m, p)
	case ruleset.ProtocolMatch:
		return m.Protocol == uint8(p.protocol)
	case ruleset.PortMatch:
		for _, r := range m.Ranges {
			if r.First <= p.port && p.port <= r.Last {
				return true
			}
		}
		return false
	case ruleset.ICMPv6TypeMatch:
		return m.Type == p.icmpType
	case ruleset.EstablishedMatch:
		return false
	}
	require.FailNow(tr.t, "unknown match", "%T", match)
	return false
}

func (tr *tracer) inSet(m ruleset.SetMatch, p packet) bool {
	members, exists := tr.sets[m.Set]
	if !exists {
		require.FailNow(tr.t, "a rule names a set that doesn't exist", m.Set)
	}
	member := ruleset.Address(p.addr(m.Side))
	switch m.Type {
	case ruleset.HashNet:
		for network := range members {
			if network.Prefix.Contains(member.Prefix.Addr()) {
				return true
			}
		}
		return false
	case ruleset.HashIPPort:
		member.Protocol, member.Port = uint8(p.protocol), p.port
	}
	_, in := members[member]
	return in
}

func masked(addr, mask netip.Addr) netip.Addr {
	bytes, bits := addr.AsSlice(), mask.AsSlice()
	for i := range bytes {
		bytes[i] &= bits[i]
	}
	masked, _ := netip.AddrFromSlice(bytes)
	return masked
}

// The tracer is the judge of everything else, so it is judged first.
func TestTracer(t *testing.T) {
	tcp := []ruleset.Match{ruleset.ProtocolMatch{Protocol: 6}}
	port := func(first, last uint16) []ruleset.Match {
		return append(tcp, ruleset.PortMatch{Ranges: []ruleset.PortRange{{First: first, Last: last}}})
	}
	rs := &ruleset.Ruleset{Chains: []ruleset.Chain{
		{Name: "top", Rules: []ruleset.Rule{
			{Match: port(1, 3), Action: ruleset.Jump, Target: "called"},
			{Match: port(3, 9), Action: ruleset.Drop},
		}},
		{Name: "called", Rules: []ruleset.Rule{
			{Match: port(2, 3), Action: ruleset.Goto, Target: "given"},
			{Match: port(1, 1), Action: ruleset.Drop},
		}},
		{Name: "given", Rules: []ruleset.Rule{{Match: tcp, Action: ruleset.Return}}},
	}}
	tr := newTracer(t, rs, nil)
	for number, dropped := range map[uint16]bool{
		1: true,  // dropped in the called chain
		2: false, // returns from the chain that it was given to, and passes top's end
		3: true,  // the same, and dropped by top's second rule
		4: true,
		0: false,
	} {
		require.Equal(t, dropped, tr.dropped("top", packet{protocol: policy.TCP, port: number}), "port %d", number)
	}
	require.False(t, tr.dropped("top", packet{protocol: policy.UDP, port: 4}))
}

func TestTracerLooksUpSets(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.1.0.1")
	tr := newTracer(t, &ruleset.Ruleset{}, map[string]ruleset.Members{
		"ip":   {ruleset.Address(a): {}},
		"net":  {ruleset.Member{Prefix: netip.MustParsePrefix("10.0.0.0/16")}: {}},
		"port": {ruleset.Member{Prefix: netip.PrefixFrom(b, 32), Protocol: 6, Port: 80}: {}},
	})
	p := packet{source: a, destination: b, protocol: policy.TCP, port: 80}
	require.True(t, tr.match(ruleset.SetMatch{Set: "ip", Type: ruleset.HashIP, Side: ruleset.Source}, p))
	require.False(t, tr.match(ruleset.SetMatch{Set: "ip", Type: ruleset.HashIP, Side: ruleset.Destination}, p))
	require.True(t, tr.match(ruleset.SetMatch{Set: "net", Type: ruleset.HashNet, Side: ruleset.Source}, p))
	require.False(t, tr.match(ruleset.SetMatch{Set: "net", Type: ruleset.HashNet, Side: ruleset.Destination}, p))
	require.True(t, tr.match(ruleset.SetMatch{Set: "port", Type: ruleset.HashIPPort, Side: ruleset.Destination}, p))
	p.protocol = policy.UDP
	require.False(t, tr.match(ruleset.SetMatch{Set: "port", Type: ruleset.HashIPPort, Side: ruleset.Destination}, p))
}
