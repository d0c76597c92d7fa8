//go:build linux

package main

import (
	"fmt"
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

// String is the command line that gives these options.
func (o options) String() string {
	return fmt.Sprintf("--nodes %d --network %s --ip-family %s --proxy-mode %s", o.Nodes, o.Network, o.IPFamily, o.ProxyMode)
}
