package iptables_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

type matches = []ruleset.Match

func address(side ruleset.Side, addr, mask string) ruleset.AddressMatch {
	return ruleset.AddressMatch{Side: side, Addr: netip.MustParseAddr(addr), Mask: netip.MustParseAddr(mask)}
}

func protocol(number uint8) ruleset.ProtocolMatch { return ruleset.ProtocolMatch{Protocol: number} }

func ports(ranges ...ruleset.PortRange) ruleset.PortMatch { return ruleset.PortMatch{Ranges: ranges} }

// render renders one rule.
func render(rule ruleset.Rule) string {
	rs := &ruleset.Ruleset{Chains: []ruleset.Chain{{Name: "MOAT-X", Rules: []ruleset.Rule{rule}}}}
	return iptables.Desired(rs).Chains["MOAT-X"][0]
}

// The texts are what iptables-save 1.8.9 prints: rules are read back and compared. Each kind
// of match has a row.
func TestRenderMatches(t *testing.T) {
	set := func(kind ruleset.SetType, side ruleset.Side) ruleset.SetMatch {
		return ruleset.SetMatch{Set: "moat-4-s", Type: kind, Side: side}
	}
	seen := map[string]bool{}
	one, many := ruleset.PortRange{First: 80, Last: 80}, ruleset.PortRange{First: 100, Last: 200}
	for want, m := range map[string]matches{
		"-j RETURN":                                              nil,
		"-s 10.0.0.1/32 -j RETURN":                               {ruleset.HostMatch(ruleset.Source, netip.MustParseAddr("10.0.0.1"))},
		"-d fd00::1/128 -j RETURN":                               {ruleset.HostMatch(ruleset.Destination, netip.MustParseAddr("fd00::1"))},
		"-s 10.0.0.0/8 -j RETURN":                                {ruleset.PrefixMatch(ruleset.Source, netip.MustParsePrefix("10.1.2.3/8"))},
		"-d 128.0.0.0/1 -j RETURN":                               {address(ruleset.Destination, "128.0.0.0", "128.0.0.0")},
		"-s 0.0.0.5/0.0.0.15 -j RETURN":                          {address(ruleset.Source, "0.0.0.5", "0.0.0.15")},
		"-d ::5/::f -j RETURN":                                   {address(ruleset.Destination, "::5", "::f")},
		"-s 1.0.0.0/255.0.255.0 -j RETURN":                       {address(ruleset.Source, "1.0.0.0", "255.0.255.0")},
		"-s 10.0.0.1/32 -d 10.0.0.2/32 -j RETURN":                {address(ruleset.Destination, "10.0.0.2", "255.255.255.255"), address(ruleset.Source, "10.0.0.1", "255.255.255.255")},
		"-p tcp -j RETURN":                                       {protocol(6)},
		"-p udp -j RETURN":                                       {protocol(17)},
		"-p sctp -j RETURN":                                      {protocol(132)},
		"-p icmp -j RETURN":                                      {protocol(1)},
		"-p ipv6-icmp -j RETURN":                                 {protocol(58)},
		"-p 99 -j RETURN":                                        {protocol(99)},
		"-p tcp -m tcp --dport 80 -j RETURN":                     {protocol(6), ports(one)},
		"-p udp -m udp --dport 100:200 -j RETURN":                {protocol(17), ports(many)},
		"-p sctp -m sctp --dport 80 -j RETURN":                   {protocol(132), ports(one)},
		"-p tcp -m multiport --dports 80,100:200 -j RETURN":      {protocol(6), ports(one, many)},
		"-p ipv6-icmp -m icmp6 --icmpv6-type 135 -j RETURN":      {protocol(58), ruleset.ICMPv6TypeMatch{Type: 135}},
		"-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN":   {ruleset.EstablishedMatch{}},
		"-m conntrack ! --ctstate RELATED,ESTABLISHED -j RETURN": {ruleset.UnestablishedMatch{}},
		"-m conntrack --ctstate ESTABLISHED -j RETURN":           {ruleset.OpenMatch{}},
		"-m conntrack --ctstate ESTABLISHED ! --ctorigsrc ff00::/8 ! --ctorigdst ff00::/8 -j RETURN":     {ruleset.OpenMatch{NotOf: netip.MustParsePrefix("ff00::/8")}},
		"-m conntrack --ctstate ESTABLISHED ! --ctorigsrc 10.0.0.255 ! --ctorigdst 10.0.0.255 -j RETURN": {ruleset.OpenMatch{NotOf: netip.MustParsePrefix("10.0.0.255/32")}},
		"-m pkttype ! --pkt-type unicast -j RETURN":                                                      {ruleset.GroupFrameMatch{}},
		"-m conntrack --ctstate RELATED -j RETURN":                                                       {ruleset.RelatedMatch{}},
		"-m conntrack --ctstate DNAT -j RETURN":                                                          {ruleset.TranslatedMatch{}},
		"-p icmp -m icmp --icmp-type 5 -j RETURN":                                                        {protocol(1), ruleset.ICMPMatch{Type: 5, Code: ruleset.AnyCode}},
		"-p icmp -m icmp --icmp-type 3/4 -j RETURN":                                                      {protocol(1), ruleset.ICMPMatch{Type: 3, Code: 4}},
		"-m hl --hl-eq 255 -j RETURN":                                                                    {ruleset.HopLimitMatch{Limit: 255}},
		"-m length --length 0:128 -j RETURN":                                                             {ruleset.AtMost(128)},
		"-m length --length 577:65535 -j RETURN":                                                         {ruleset.MoreThan(576)},
		"-m addrtype --dst-type BROADCAST,MULTICAST -j RETURN":                                           {ruleset.GroupMatch{}},
		"-i cni0 -j RETURN":                                                                              {ruleset.InterfaceMatch{Side: ruleset.Source, Name: "cni0"}},
		"-s 10.0.0.0/8 -i a -o b -p tcp -j RETURN":                                                       {protocol(6), ruleset.InterfaceMatch{Side: ruleset.Destination, Name: "b"}, ruleset.InterfaceMatch{Side: ruleset.Source, Name: "a"}, ruleset.PrefixMatch(ruleset.Source, netip.MustParsePrefix("10.0.0.0/8"))},
		"-m set ! --match-set moat-4-s src -j RETURN":                                                    {ruleset.AbsentMatch{Set: "moat-4-s", Side: ruleset.Source}},
		"-m set --match-set moat-4-s src -j RETURN":                                                      {set(ruleset.HashIP, ruleset.Source)},
		"-m set --match-set moat-4-s dst -j RETURN":                                                      {set(ruleset.HashNet, ruleset.Destination)},
		"-m set --match-set moat-4-s dst,dst -j RETURN":                                                  {set(ruleset.HashIPPort, ruleset.Destination)},
		"-m set --match-set moat-4-s src,dst,dst -j RETURN":                                              {set(ruleset.HashIPPortIP, ruleset.Source)},
		"-m set --match-set moat-4-s dst,src,src -j RETURN":                                              {set(ruleset.HashIPPortIP, ruleset.Destination)},
		"-m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL -j RETURN":                                  {ruleset.ConnectionMatch{Opener: ruleset.Source}},
		"-m conntrack --ctstate ESTABLISHED --ctdir REPLY -j RETURN":                                     {ruleset.ConnectionMatch{Opener: ruleset.Destination}},
		"-p tcp -m tcp ! --tcp-flags SYN,ACK SYN -m conntrack --ctstate INVALID,NEW -j RETURN":           {protocol(6), ruleset.MidStreamMatch{}},
		"-m physdev --physdev-in veth0 -j RETURN":                                                        {ruleset.BridgePortMatch{Name: "veth0"}},
		"-p tcp -m set --match-set moat-4-s src -m tcp --dport 80 -j RETURN":                             {set(ruleset.HashIP, ruleset.Source), protocol(6), ports(one)},
		"-d 10.0.0.0/8 -m set --match-set moat-4-s dst,dst -j RETURN":                                    {set(ruleset.HashIPPort, ruleset.Destination), ruleset.PrefixMatch(ruleset.Destination, netip.MustParsePrefix("10.0.0.0/8"))},
	} {
		require.Equal(t, want, render(ruleset.Rule{Match: m, Action: ruleset.Return}))
		for _, match := range m {
			seen[reflect.TypeOf(match).Name()] = true
		}
	}
	for _, name := range matchTypes(t) {
		require.True(t, seen[name], "no row has a %s", name)
	}
}

// A match that the renderer doesn't know must not make a rule that matches more.
func TestAnUnknownMatchIsRefused(t *testing.T) {
	type stranger struct{ ruleset.Match }
	rule := ruleset.Rule{Match: matches{protocol(6), stranger{}}, Action: ruleset.Return}
	require.Equal(t, "-p tcp -m moat-unknown -j RETURN", render(rule))
}

// matchTypes returns the names of the types that implement ruleset.Match, from its source.
func matchTypes(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../ruleset/*.go")
	require.NoError(t, err)
	var names []string
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == "isMatch" {
				names = append(names, f.Recv.List[0].Type.(*ast.Ident).Name)
			}
		}
	}
	require.NotEmpty(t, names)
	return names
}

func TestRenderActions(t *testing.T) {
	require.Equal(t, "-j RETURN", render(ruleset.Rule{Action: ruleset.Return}))
	require.Equal(t, "-j DROP", render(ruleset.Rule{Action: ruleset.Drop}))
	require.Equal(t, "-j MOAT-Y", render(ruleset.Rule{Action: ruleset.Jump, Target: "MOAT-Y"}))
	require.Equal(t, "-g MOAT-Y", render(ruleset.Rule{Action: ruleset.Goto, Target: "MOAT-Y"}))
	require.Equal(t, "-j DROP", render(ruleset.Rule{Action: 99}), "what isn't known closes")
}

func TestDesired(t *testing.T) {
	table := iptables.Desired(&ruleset.Ruleset{
		Hooks: []ruleset.Hook{
			{Builtin: "FORWARD", Match: []ruleset.Match{ruleset.UnestablishedMatch{}}, Chain: "MOAT-FORWARD"},
			{Builtin: "INPUT", Chain: "MOAT-INPUT"},
		},
		Chains: []ruleset.Chain{
			{Name: "MOAT-FORWARD", Rules: []ruleset.Rule{{Action: ruleset.Return}, {Action: ruleset.Drop}}},
			{Name: "MOAT-INPUT"},
		},
	})
	require.Equal(t, iptables.Table{
		Chains: map[string][]string{"MOAT-FORWARD": {"-j RETURN", "-j DROP"}, "MOAT-INPUT": {}},
		Hooks:  map[string][]iptables.HookPosition{"FORWARD": {{Rule: unestablished + "-j MOAT-FORWARD"}}, "INPUT": {{Rule: "-j MOAT-INPUT"}}},
	}, table)
}
