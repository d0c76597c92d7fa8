//go:build linux

package main

import (
	"slices"
	"strings"
)

func parseOptions(args []string) (options, error) {
	var o options
	flags := newFlags("up")
	flags.IntVar(&o.Nodes, "nodes", 3, "number of nodes")
	flags.StringVar(&o.Network, "network", networkVXLAN, "pod network: vxlan (flanneld) or hostgw (static routes)")
	flags.StringVar((*string)(&o.IPFamily), "ip-family", string(familyIPv4), "address families of pods and services: ipv4 or dual")
	flags.StringVar(&o.ProxyMode, "proxy-mode", proxyIPTables, "kube-proxy's mode: iptables or nftables")
	if err := parseNoArguments(flags, args); err != nil {
		return o, err
	}
	return o, validate(o)
}

func validate(o options) error {
	if o.Nodes < 1 || o.Nodes > maxNodes {
		return usagef("--nodes %d: choose 1 to %d", o.Nodes, maxNodes)
	}
	for _, choice := range []struct {
		flag, value string
		allowed     []string
	}{
		{"network", o.Network, []string{networkVXLAN, networkHostGW}},
		{"ip-family", string(o.IPFamily), []string{string(familyIPv4), string(familyDual)}},
		{"proxy-mode", o.ProxyMode, []string{proxyIPTables, proxyNFTables}},
	} {
		if !slices.Contains(choice.allowed, choice.value) {
			return usagef("--%s %q: choose %s", choice.flag, choice.value, strings.Join(choice.allowed, " or "))
		}
	}
	return nil
}
