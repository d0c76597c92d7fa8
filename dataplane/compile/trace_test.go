package compile_test

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// packet is a packet as a node's hooks see it: the first of a connection, unless its fields say
// something else.
type packet struct {
	source, destination netip.Addr
	protocol            policy.Protocol
	port                uint16
	icmpType            uint8
	in, out             string // interfaces; out is empty for what is for the node itself
	inPort              string // of the bridge that is in
	routed              bool   // a router has passed it on
	translated          bool   // its destination was another one
	related             bool   // it belongs to a connection
	bytes               uint16
	groupFrame          bool          // it came in a frame to more than one host
	opened              [2]netip.Addr // from and to, of a connection that was let through
}

func (p *packet) addr(side ruleset.Side) netip.Addr {
	if side == ruleset.Source {
		return p.source
	}
	return p.destination
}

func (p *packet) link(side ruleset.Side) string {
	if side == ruleset.Source {
		return p.in
	}
	return p.out
}

// broadcasts are the broadcast addresses of the nodes' networks.
var broadcasts = []netip.Addr{netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("10.244.1.255")}

// tracer walks packets through the chains of one node, as the kernel does. It
// looks up names once, when it is made, since it walks millions of packets.
type tracer struct {
	t      testing.TB
	chains map[string]*tracedChain
	sets   map[string]ruleset.Members
}

type tracedChain struct{ rules []tracedRule }

type tracedRule struct {
	matches []func(*packet) bool
	action  ruleset.Action
	target  *tracedChain // of Jump and Goto
}

func newTracer(t testing.TB, rs *ruleset.Ruleset, sets map[string]ruleset.Members) *tracer {
	tr := &tracer{t: t, chains: map[string]*tracedChain{}, sets: sets}
	for _, chain := range rs.Chains {
		tr.chains[chain.Name] = &tracedChain{}
	}
	for _, chain := range rs.Chains {
		for _, rule := range chain.Rules {
			traced := tracedRule{action: rule.Action}
			if rule.Action == ruleset.Jump || rule.Action == ruleset.Goto {
				traced.target = tr.chain(rule.Target)
			}
			for _, match := range rule.Match {
				traced.matches = append(traced.matches, tr.matcher(match))
			}
			tr.chains[chain.Name].rules = append(tr.chains[chain.Name].rules, traced)
		}
	}
	return tr
}

func (tr *tracer) chain(name string) *tracedChain {
	chain, exists := tr.chains[name]
	if !exists {
		require.FailNow(tr.t, "a rule names a chain that doesn't exist", name)
	}
	return chain
}

// dropped reports whether the packet ends in the chain or one that it leads to.
func (tr *tracer) dropped(chain string, p *packet) bool { return tr.chain(chain).drops(p) }

// drops walks the rules. A Goto gives the packet away: what returns from there
// returns from here.
func (c *tracedChain) drops(p *packet) bool {
	for i := range c.rules {
		rule := &c.rules[i]
		if !rule.matchesAll(p) {
			continue
		}
		switch rule.action {
		case ruleset.Return:
			return false
		case ruleset.Goto:
			return rule.target.drops(p)
		case ruleset.Jump:
			if rule.target.drops(p) {
				return true
			}
		default:
			return true
		}
	}
	return false
}

func (r *tracedRule) matchesAll(p *packet) bool {
	for _, matches := range r.matches {
		if !matches(p) {
			return false
		}
	}
	return true
}

func (tr *tracer) matcher(match ruleset.Match) func(*packet) bool {
	switch m := match.(type) {
	case ruleset.AddressMatch:
		return func(p *packet) bool { return masked(p.addr(m.Side), m.Mask) == m.Addr.As16() }
	case ruleset.SetMatch:
		return tr.setMatcher(m)
	case ruleset.AbsentMatch:
		in := tr.setMatcher(ruleset.SetMatch{Set: m.Set, Type: ruleset.HashIP, Side: m.Side})
		return func(p *packet) bool { return !in(p) }
	case ruleset.InterfaceMatch:
		return func(p *packet) bool { return isNamed(p.link(m.Side), m.Name) }
	case ruleset.GroupMatch:
		return func(p *packet) bool { return p.destination.IsMulticast() || slices.Contains(broadcasts, p.destination) }
	case ruleset.ProtocolMatch:
		return func(p *packet) bool { return m.Protocol == uint8(p.protocol) }
	case ruleset.PortMatch:
		return func(p *packet) bool {
			return slices.ContainsFunc(m.Ranges, func(r ruleset.PortRange) bool { return r.First <= p.port && p.port <= r.Last })
		}
	case ruleset.ICMPv6TypeMatch:
		return func(p *packet) bool { return m.Type == p.icmpType }
	}
	return tr.packetMatcher(match)
}

// isNamed compares an interface with what iptables was told: a plus sign stands for any end.
func isNamed(name, told string) bool {
	prefix, open := strings.CutSuffix(told, "+")
	return name == told || open && strings.HasPrefix(name, prefix)
}

// packetMatcher is for the matches of ruleset/match.go, and for those of connections, which
// no packet has here.
func (tr *tracer) packetMatcher(match ruleset.Match) func(*packet) bool {
	switch m := match.(type) {
	case ruleset.HopLimitMatch:
		return func(p *packet) bool { return (m.Limit == 255) == !p.routed }
	case ruleset.LengthMatch:
		return func(p *packet) bool { return m.First <= p.bytes && p.bytes <= m.Last }
	case ruleset.BridgePortMatch:
		return func(p *packet) bool { return isNamed(p.inPort, m.Name) }
	case ruleset.OpenMatch:
		return func(p *packet) bool { return p.isOpen(m) }
	case ruleset.GroupFrameMatch:
		return func(p *packet) bool { return p.groupFrame }
	case ruleset.RelatedMatch:
		return func(p *packet) bool { return p.related }
	case ruleset.ICMPMatch:
		return func(p *packet) bool { return p.isICMP(m) }
	case ruleset.TranslatedMatch:
		return func(p *packet) bool { return p.translated }
	case ruleset.EstablishedMatch:
		return func(*packet) bool { return false }
	}
	require.FailNow(tr.t, "unknown match", "%T", match)
	return nil
}

func (p *packet) isOpen(m ruleset.OpenMatch) bool {
	of := m.NotOf.IsValid() && (m.NotOf.Contains(p.opened[0]) || m.NotOf.Contains(p.opened[1]))
	return p.opened[0].IsValid() && !of
}

func (p *packet) isICMP(m ruleset.ICMPMatch) bool {
	return m.Type == p.icmpType && (m.Code == ruleset.AnyCode || m.Code == int(p.port))
}

func (tr *tracer) setMatcher(m ruleset.SetMatch) func(*packet) bool {
	members, exists := tr.sets[m.Set]
	if !exists {
		require.FailNow(tr.t, "a rule names a set that doesn't exist", m.Set)
	}
	switch m.Type {
	case ruleset.HashNet:
		networks := slices.Collect(maps.Keys(members))
		return func(p *packet) bool {
			addr := p.addr(m.Side)
			return slices.ContainsFunc(networks, func(network ruleset.Member) bool { return network.Prefix.Contains(addr) })
		}
	case ruleset.HashIPPort:
		return func(p *packet) bool {
			member := ruleset.Address(p.addr(m.Side))
			member.Protocol, member.Port = uint8(p.protocol), p.port
			_, in := members[member]
			return in
		}
	}
	return func(p *packet) bool {
		_, in := members[ruleset.Address(p.addr(m.Side))]
		return in
	}
}

// masked returns the bits of the address that are set in the mask, in the form
// of Addr.As16: an IPv4 address keeps the prefix that marks it.
func masked(addr, mask netip.Addr) [16]byte {
	bytes, bits := addr.As16(), mask.As16()
	first := 0
	if addr.Is4() {
		first = 12
	}
	for i := first; i < len(bytes); i++ {
		bytes[i] &= bits[i]
	}
	return bytes
}

// All other tests trust the tracer, so it has a test of its own.
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
		require.Equal(t, dropped, tr.dropped("top", &packet{protocol: policy.TCP, port: number}), "port %d", number)
	}
	require.False(t, tr.dropped("top", &packet{protocol: policy.UDP, port: 4}))
}

func TestTracerLooksUpSets(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.1.0.1")
	tr := newTracer(t, &ruleset.Ruleset{}, map[string]ruleset.Members{
		"ip":   {ruleset.Address(a): {}},
		"net":  {ruleset.Member{Prefix: netip.MustParsePrefix("10.0.0.0/16")}: {}},
		"port": {ruleset.Member{Prefix: netip.PrefixFrom(b, 32), Protocol: 6, Port: 80}: {}},
	})
	p := &packet{source: a, destination: b, protocol: policy.TCP, port: 80}
	require.True(t, tr.matcher(ruleset.SetMatch{Set: "ip", Type: ruleset.HashIP, Side: ruleset.Source})(p))
	require.False(t, tr.matcher(ruleset.SetMatch{Set: "ip", Type: ruleset.HashIP, Side: ruleset.Destination})(p))
	require.True(t, tr.matcher(ruleset.SetMatch{Set: "net", Type: ruleset.HashNet, Side: ruleset.Source})(p))
	require.False(t, tr.matcher(ruleset.SetMatch{Set: "net", Type: ruleset.HashNet, Side: ruleset.Destination})(p))
	require.True(t, tr.matcher(ruleset.SetMatch{Set: "port", Type: ruleset.HashIPPort, Side: ruleset.Destination})(p))
	p.protocol = policy.UDP
	require.False(t, tr.matcher(ruleset.SetMatch{Set: "port", Type: ruleset.HashIPPort, Side: ruleset.Destination})(p))
}
