package compile_test

import (
	"net/netip"
	"slices"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
	"github.com/moat-dev/moat/dataplane/ruleset"
	"github.com/moat-dev/moat/dataplane/selector"
)

// compileNode returns what a node has in its kernel that guards the given CIDRs.
func compileNode(c *policy.Cluster, node string, family ruleset.Family, guarded ...netip.Prefix) compile.Output {
	local := podsOf(c, node)
	endpoints := policy.Endpoints(local, c.Policies)
	return compile.Compile(compile.Host{}, family, endpoints, bridgeOf(endpoints), compile.Guard{PodCIDRs: guarded, Local: addrsOf(local)})
}

func addrsOf(pods []*policy.Pod) []netip.Addr {
	var addrs []netip.Addr
	for _, pod := range pods {
		addrs = append(addrs, pod.Addrs...)
	}
	return addrs
}

// hostsOf returns the addresses of a node's pods as prefixes: a guard of these
// closes no address.
func hostsOf(c *policy.Cluster, node string) []netip.Prefix {
	var hosts []netip.Prefix
	for _, addr := range addrsOf(podsOf(c, node)) {
		hosts = append(hosts, netip.PrefixFrom(addr, addr.BitLen()))
	}
	return hosts
}

// bridge is the interface that all pods of a node are behind.
const bridge = "cni0"

// bridgeOf returns the links of a node with one bridge.
func bridgeOf(endpoints []policy.Endpoint) compile.Links {
	var links compile.Links
	for d := range policy.Direction(policy.Directions) {
		if slices.ContainsFunc(endpoints, func(e policy.Endpoint) bool { return e.Restricted(d) }) {
			links[d] = []string{bridge}
		}
	}
	return links
}

func podsOf(c *policy.Cluster, node string) []*policy.Pod {
	addresses := addressesOf(c)
	var local []*policy.Pod
	for _, pod := range c.Pods {
		if pod.Node == node {
			local = append(local, addresses.Subject(pod))
		}
	}
	return local
}

func addressesOf(c *policy.Cluster) *selector.Addresses {
	addresses := selector.NewAddresses()
	for _, pod := range c.Pods {
		addresses.Set(pod)
	}
	return addresses
}

func nodesOf(c *policy.Cluster) []string {
	var nodes []string
	for _, pod := range c.Pods {
		if pod.Node != "" {
			nodes = append(nodes, pod.Node)
		}
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// contents fills the sets of an output with the members that they have while the
// cluster is as given.
func contents(out *compile.Output, c *policy.Cluster) map[string]ruleset.Members {
	sets := map[string]ruleset.Members{}
	for _, set := range out.Ruleset.Sets {
		sets[set.Name] = set.Members
	}
	for d, members := range out.Isolated {
		sets[compile.IsolatedSet(out.Ruleset.Family, policy.Direction(d))] = members
	}
	if out.Local != nil {
		sets[compile.LocalSet(out.Ruleset.Family)] = out.Local
		sets[compile.ForeignSet(out.Ruleset.Family)] = out.Foreign
	}
	for name, peers := range out.Peers {
		sets[name] = membersOf(&peers, out.Ruleset.Family, c)
	}
	return sets
}

func membersOf(peers *policy.PeerSet, family ruleset.Family, c *policy.Cluster) ruleset.Members {
	members, addresses := ruleset.Members{}, addressesOf(c)
	for _, shown := range c.Pods {
		pod := addresses.Peer(shown)
		if !policytest.Selects(&peers.Pods, pod, c.Namespaces) {
			continue
		}
		peers.Elements(pod, func(e policy.Element) {
			if family.Holds(e.Addr) {
				member := ruleset.Address(e.Addr)
				member.Protocol, member.Port = uint8(e.Protocol), e.Port
				members[member] = struct{}{}
			}
		})
	}
	return members
}
