//go:build linux

package machine

import "fmt"

// IPFamily says which addresses pods and services have.
type IPFamily string

// The families. FamilyDual is IPv4 and IPv6.
const (
	FamilyIPv4 IPFamily = "ipv4"
	FamilyDual IPFamily = "dual"
)

// The pod networks: real flanneld, or static routes without it.
const (
	NetworkVXLAN  = "vxlan"
	NetworkHostGW = "hostgw"
)

// The modes of kube-proxy.
const (
	ProxyIPTables = "iptables"
	ProxyNFTables = "nftables"
)

// MaxNodes is the largest number of nodes. Their addresses are 172.30.0.11 and up.
const MaxNodes = 20

// InitCommand is the argument with which this program is a machine's init, and the name
// under which that process is recorded.
const InitCommand = "init"

// ProgramCommand is what a user types to run this program. Errors name it where they say
// what to do.
const ProgramCommand = "hack/cluster.sh"

// Options is what "up" can be told; it is recorded, so that a second "up" can
// tell whether it asks for the same cluster.
type Options struct {
	Nodes     int      `json:"nodes"`
	Network   string   `json:"network"`
	IPFamily  IPFamily `json:"ipFamily"`
	ProxyMode string   `json:"proxyMode"`
}

// String is the command line that gives these options.
func (o Options) String() string {
	return fmt.Sprintf("--nodes %d --network %s --ip-family %s --proxy-mode %s", o.Nodes, o.Network, o.IPFamily, o.ProxyMode)
}
