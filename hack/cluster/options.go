//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
)

// ipFamily says which addresses pods and services have.
type ipFamily string

const (
	familyIPv4 ipFamily = "ipv4"
	familyDual ipFamily = "dual" // IPv4 and IPv6
)

const (
	networkVXLAN   = "vxlan"  // real flanneld
	networkHostGW  = "hostgw" // static routes, no flanneld
	proxyIPTables  = "iptables"
	proxyNFTables  = "nftables"
	maxNodes       = 20 // the nodes' addresses are 172.30.0.11 and up
	initCommand    = "init"
	programCommand = "hack/cluster.sh"
)

// options is what "up" can be told; it is recorded, so that a second "up" can
// tell whether it asks for the same cluster.
type options struct {
	Nodes     int      `json:"nodes"`
	Network   string   `json:"network"`
	IPFamily  ipFamily `json:"ipFamily"`
	ProxyMode string   `json:"proxyMode"`
}

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
	return o, o.validate()
}

func (o options) validate() error {
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

// String is the command line that gives these options.
func (o options) String() string {
	return fmt.Sprintf("--nodes %d --network %s --ip-family %s --proxy-mode %s", o.Nodes, o.Network, o.IPFamily, o.ProxyMode)
}
