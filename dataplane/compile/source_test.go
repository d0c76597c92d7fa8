package compile_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// judging compiles a node on which no policy isolates anything, with these sources.
func judging(family ruleset.Family, links []compile.PodLink, lacks ...compile.Extension) compile.Output {
	out := compile.Compile(compile.Host{}, family, nil, compile.Links{}, compile.Guard{})
	out.JudgeSources(compile.Sources{Links: links, Forged: ruleset.Drop}, lacks)
	return out
}

// manyLinks returns links of both kinds to pods with an address in each family. Each seventh
// is exempt.
func manyLinks(count int) []compile.PodLink {
	links := make([]compile.PodLink, count)
	for i := range links {
		links[i] = compile.PodLink{
			Name:   fmt.Sprintf("veth%x", i*7919),
			Addrs:  []netip.Addr{netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)}), netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(i >> 8), 15: byte(i)})},
			Exempt: i%7 == 3,
		}
		if i%3 != 0 {
			links[i].Bridge = "cni0"
		}
	}
	return links
}

// by returns a packet that comes by a link.
func by(link *compile.PodLink, source netip.Addr) *packet {
	p := &packet{source: source, destination: source.Next(), protocol: policy.TCP, port: 80, in: link.Name}
	if link.Bridge != "" {
		p.in, p.inPort = link.Bridge, link.Name
	}
	return p
}

// A packet passes exactly if its source is one of its pod's or the pod is exempt, whatever link
// it comes by, and if it comes by no pod's link.
func TestEachPodSendsFromItsOwnAddresses(t *testing.T) {
	links := manyLinks(300)
	for _, family := range ruleset.Families() {
		out := judging(family, links)
		tr := newTracer(t, &out.Ruleset, contents(&out, &policy.Cluster{}))
		for i := range links {
			for j := range 50 {
				source := links[(i+j*j)%len(links)].Addrs[family/ruleset.IPv6]
				forged := !links[i].Exempt && !slices.Contains(links[i].Addrs, source)
				for _, chain := range []string{compile.ForwardChain, compile.InputChain} {
					require.Equal(t, forged, tr.dropped(chain, by(&links[i], source)), "%s by %s in %s", source, links[i].Name, chain)
				}
			}
		}
		for _, elsewhere := range []compile.PodLink{{Name: "eth0"}, {Name: "vethff"}, {Name: "eth0", Bridge: "cni0"}} {
			require.False(t, tr.dropped(compile.ForwardChain, by(&elsewhere, links[1].Addrs[family/ruleset.IPv6])))
		}
		exempt := (len(links) + 3) / 7
		for _, chain := range out.Ruleset.Chains {
			most := map[bool]int{false: 16, true: 2*16 + 2 + exempt}[chain.Name == compile.OriginChain]
			require.LessOrEqual(t, len(chain.Rules), most, "a packet is compared with few links: %s", chain.Name)
			require.LessOrEqual(t, len(chain.Name), 28, "XT_EXTENSION_MAXNAMELEN")
		}
	}
}

// Packets pass that a host sends before it has an address, and packets from link-local addresses.
func TestUnaddressedPacketsPass(t *testing.T) {
	link := compile.PodLink{Name: "veth1", Bridge: "cni0", Addrs: []netip.Addr{netip.MustParseAddr("10.244.0.1")}}
	for _, c := range []struct {
		source   string
		protocol policy.Protocol
		port     uint16
		dropped  bool
	}{
		{"0.0.0.0", policy.UDP, 67, false},
		{"0.0.0.0", policy.UDP, 68, true},
		{"0.0.0.0", policy.TCP, 67, true},
		{"169.254.1.1", policy.UDP, 67, true},
		{"::", policy.ICMPv6, 0, false},
		{"fe80::1", policy.TCP, 80, false},
		{"febf::1", policy.TCP, 80, false},
		{"fec0::1", policy.TCP, 80, true},
	} {
		p := by(&link, netip.MustParseAddr(c.source))
		p.protocol, p.port = c.protocol, c.port
		family := ruleset.IPv4
		if p.source.Is6() {
			family = ruleset.IPv6
		}
		out := judging(family, []compile.PodLink{link})
		require.Equal(t, c.dropped, newTracer(t, &out.Ruleset, contents(&out, &policy.Cluster{})).dropped(compile.InputChain, p), c)
	}
}

// Few rules lead packets to the source chain, and no packets of other interfaces.
func TestGatesOfSources(t *testing.T) {
	for _, c := range []struct {
		links []compile.PodLink
		gates []string
	}{
		{[]compile.PodLink{{Name: "veth1", Bridge: "cni0"}, {Name: "veth2", Bridge: "cni0"}, {Name: "veth3", Bridge: "br1"}}, []string{"br1", "cni0"}},
		{[]compile.PodLink{{Name: "cali1a"}, {Name: "cali2b"}, {Name: "eni7"}, {Name: "v"}}, []string{"cali+", "eni7", "v"}},
		{[]compile.PodLink{{Name: "veth1"}, {Name: "veth12"}}, []string{"veth1+"}},
	} {
		out := judging(ruleset.IPv4, c.links)
		require.Equal(t, c.gates, gatesOf(out.Ruleset.Chains), "%v", c.links)
	}
	var unlike []compile.PodLink
	for i := range 17 {
		unlike = append(unlike, compile.PodLink{Name: fmt.Sprintf("%02d-pod", i)})
	}
	out := judging(ruleset.IPv4, unlike)
	require.Equal(t, []string{""}, gatesOf(out.Ruleset.Chains))
}

// gatesOf returns the interfaces whose packets go to the source chain; empty: all.
func gatesOf(chains []ruleset.Chain) []string {
	var gates []string
	for _, chain := range chains {
		for _, rule := range chain.Rules {
			if chain.Name != compile.ForwardChain || rule.Target != compile.SourceChain {
				continue
			}
			gate := ""
			for _, match := range rule.Match {
				gate = match.(ruleset.InterfaceMatch).Name
			}
			gates = append(gates, gate)
		}
	}
	return gates
}

// Where no link is judged, rules and hooks are the same as without JudgeSources.
func TestNothingIsJudgedInVain(t *testing.T) {
	plain := compile.Compile(compile.Host{}, ruleset.IPv4, nil, compile.Links{}, compile.Guard{})
	bridged := compile.PodLink{Name: "veth1", Bridge: "cni0"}
	require.Equal(t, plain, judging(ruleset.IPv4, nil))
	require.Equal(t, plain, judging(ruleset.IPv4, []compile.PodLink{{Name: "veth1", Exempt: true}}))
	require.Equal(t, plain, judging(ruleset.IPv4, []compile.PodLink{bridged}, compile.BridgePort))
	judged := judging(ruleset.IPv4, []compile.PodLink{bridged})
	for _, hook := range judged.Ruleset.Hooks {
		if hook.Chain == compile.ForwardChain || hook.Chain == compile.InputChain {
			require.Empty(t, hook.Match, "packets of known connections can be forged too")
		}
	}
}
