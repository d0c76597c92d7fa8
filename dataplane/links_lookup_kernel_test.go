package dataplane

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/host"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/policy"
)

// route adds a route of the node: to a link, or by a gateway behind it.
func (s *scene) route(to, link, gateway string) {
	s.t.Helper()
	require.NoError(s.t, s.node.Do(func() error {
		found, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		_, prefix, err := net.ParseCIDR(to)
		if err != nil {
			return err
		}
		route := &netlink.Route{LinkIndex: found.Attrs().Index, Dst: prefix, Scope: netlink.SCOPE_LINK}
		if gateway != "" {
			route.Gw, route.Flags, route.Scope = net.ParseIP(gateway), int(netlink.FLAG_ONLINK), netlink.SCOPE_UNIVERSE
		}
		return netlink.RouteAdd(route)
	}))
}

// isolatedAt returns pods with one address each that may send nothing.
func isolatedAt(addrs ...string) []policy.Endpoint {
	var endpoints []policy.Endpoint
	for _, addr := range addrs {
		e := policy.Endpoint{Pod: &policy.Pod{Addrs: []netip.Addr{netip.MustParseAddr(addr)}}}
		e.Isolating[policy.Egress] = []*policy.Policy{{}}
		endpoints = append(endpoints, e)
	}
	return endpoints
}

// Links are those that routes lead to directly. What leads to the rest of the world
// is the node's own: it isn't touched for the sake of a pod.
func TestLinksAreThoseOfPods(t *testing.T) {
	s := newScene(t, iptables.NFT)
	for _, addr := range []string{"10.244.9.1", "10.244.9.2", "192.168.9.9"} {
		s.node.AddRemote(t, addr) // veth1, veth2, veth3
	}
	s.route("10.244.7.0/24", "veth2", "10.244.9.2")
	s.route("0.0.0.0/0", "veth3", "192.168.9.9")
	s.route("192.168.9.0/24", "veth3", "")

	var links compile.Links
	require.NoError(t, s.node.Do(func() (err error) {
		links, err = host.LinksOf(isolatedAt(
			"10.244.1.10", "10.244.1.11", "fd00:10:244:1::10", // cni0
			"10.244.9.1",           // a link of its own
			"10.244.7.7",           // behind a gateway
			"192.168.9.10",         // next to the node's own gateway
			"172.16.0.1",           // somewhere in the world
			"10.244.1.1",           // the node itself
			"fd00:10:244:77::1:10", // nowhere
		))
		return err
	}))
	require.Equal(t, compile.Links{policy.Egress: {"cni0", "veth1"}}, links)
}

// A pod whose link isn't there yet is followed to it by the next full pass. A link
// that no rule can name is reported, and the rules of the others stay.
func TestLinksAreFollowed(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := bridgeScene(t, backend)
		s.node.AddRemote(t, "192.168.9.9") // veth3
		s.apply("metadata: {name: row}\nspec: " + restrictions["ingress"])
		s.sync()
		const bridged, routed = "-o cni0 -m addrtype", "-o veth3 -m addrtype"
		require.Contains(t, s.dump(), bridged)

		pod := s.pods["db"].DeepCopy()
		pod.Status.PodIPs[0].IP = "10.244.3.3"
		s.update(pod)
		s.sync()
		require.NotContains(t, s.dump(), "MOAT-LINK", "the pod is nowhere")

		s.route("10.244.3.0/24", "veth3", "")
		s.enforcer.distrust()
		s.sync()
		require.Contains(t, s.dump(), routed)

		s.rename("veth3", "any+")
		s.enforcer.distrust()
		require.ErrorContains(t, s.trySync(), `filtering by the interface "any+"`)
		require.Contains(t, s.dump(), routed, "what was closed stays closed")
		pod = pod.DeepCopy()
		pod.Status.PodIPs[0].IP = "10.244.1.10"
		s.update(pod)
		s.sync()
		require.Contains(t, s.dump(), bridged)
		require.NotContains(t, s.dump(), routed)
	})
}

func (s *scene) rename(from, to string) {
	s.t.Helper()
	require.NoError(s.t, s.node.Do(func() error {
		link, err := netlink.LinkByName(from)
		if err != nil {
			return err
		}
		return netlink.LinkSetName(link, to)
	}))
}
