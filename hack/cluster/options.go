//go:build linux

package main

import (
	"slices"
	"strings"

	"github.com/moat-dev/moat/hack/cluster/machine"
)

func parseOptions(args []string) (machine.Options, error) {
	var o machine.Options
	flags := newFlags("up")
	flags.IntVar(&o.Nodes, "nodes", 3, "number of nodes")
	flags.StringVar(&o.Network, "network", machine.NetworkVXLAN, "pod network: vxlan (flanneld) or hostgw (static routes)")
	flags.StringVar((*string)(&o.IPFamily), "ip-family", string(machine.FamilyIPv4), "address families of pods and services: ipv4 or dual")
	flags.StringVar(&o.ProxyMode, "proxy-mode", machine.ProxyIPTables, "kube-proxy's mode: iptables or nftables")
	if err := parseNoArguments(flags, args); err != nil {
		return o, err
	}
	return o, validate(o)
}

func validate(o machine.Options) error {
	if o.Nodes < 1 || o.Nodes > machine.MaxNodes {
		return usagef("--nodes %d: choose 1 to %d", o.Nodes, machine.MaxNodes)
	}
	for _, choice := range []struct {
		flag, value string
		allowed     []string
	}{
		{"network", o.Network, []string{machine.NetworkVXLAN, machine.NetworkHostGW}},
		{"ip-family", string(o.IPFamily), []string{string(machine.FamilyIPv4), string(machine.FamilyDual)}},
		{"proxy-mode", o.ProxyMode, []string{machine.ProxyIPTables, machine.ProxyNFTables}},
	} {
		if !slices.Contains(choice.allowed, choice.value) {
			return usagef("--%s %q: choose %s", choice.flag, choice.value, strings.Join(choice.allowed, " or "))
		}
	}
	return nil
}
