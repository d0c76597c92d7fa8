package dataplane

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/metrics/metricstest"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/podstart"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// sourceScene has two pods and a virtual router on the node's bridge, a pod with a link of its
// own, and one of another node. It plays the runtime, which knows those of this node.
type sourceScene struct {
	*scene
	running map[string]podstart.Sandbox
	open    func(string) (*os.File, error)
}

func newSourceScene(t *testing.T, backend iptables.Backend) *sourceScene {
	t.Helper()
	s := &sourceScene{scene: newScene(t, backend), running: map[string]podstart.Sandbox{}}
	s.open = func(path string) (*os.File, error) {
		host := s.hosts[path]
		if host == nil {
			return nil, os.ErrNotExist
		}
		return host.OpenNamespace()
	}
	s.model.JudgesSources()
	s.namespace("default", nil)
	s.namespace("routers", map[string]string{v1alpha1.AllowSpoofingLabel: "true"})
	s.pod("default", "a", nil, "10.244.1.10", "fd00:10:244:1::10")
	s.pod("default", "b", nil, "10.244.1.11", "fd00:10:244:1::11")
	s.pod("routers", "router", nil, "10.244.1.12", "fd00:10:244:1::12")
	s.host("alone", s.node.AddRemote(t, "10.244.1.20", "fd00:10:244:1::20"))
	s.host("remote", s.node.AddRemote(t, "10.244.2.10", "fd00:10:244:2::10"))
	s.starts("default", "a")
	s.starts("default", "b")
	s.starts("routers", "router")
	s.starts("default", "alone")
	return s
}

// starts has the runtime run a pod on the host of its name.
func (s *sourceScene) starts(namespace, name string) {
	sandbox := podstart.Sandbox{
		ID: fmt.Sprint(name, "-", s.node.Port(s.hosts[name])), UID: types.UID(name), Namespace: namespace, Name: name,
		Addrs: s.hosts[name].Addrs, NetNS: name,
	}
	s.running[name] = sandbox
	s.model.StartSandbox(sandbox)
}

// stops ends what runs of a pod, and its host.
func (s *sourceScene) stops(name string) {
	s.model.StopSandbox(s.running[name])
	s.node.RemovePod(s.t, s.hosts[name])
	delete(s.hosts, name)
}

// begin starts an agent, as if the one before had ended.
func (s *sourceScene) begin(mode AntiSpoofing) {
	s.t.Helper()
	backend := s.enforcer.requested
	s.enforcer.close()
	s.enforcer = newEnforcer(backend)
	s.enforcer.sources.mode, s.enforcer.sources.links.Open = mode, s.open
	s.sync()
}

// forged returns what the metric counts after a full read.
func (s *sourceScene) forged() map[ruleset.Family]uint64 {
	s.t.Helper()
	s.enforcer.distrust()
	s.sync()
	return countedPackets(s.t, s.enforcer.metrics, "spoofed_packets_total")
}

// counts adds what the same number of packets in each family add.
func counts(packets uint64) map[ruleset.Family]uint64 {
	return map[ruleset.Family]uint64{ruleset.IPv4: packets, ruleset.IPv6: packets}
}

// datagram is a packet of no connection.
func datagram(from, to netip.Addr, payload []byte) nodetest.Packet {
	return nodetest.Packet{From: from, To: to, Protocol: unix.IPPROTO_UDP, Hops: 64, Payload: nodetest.UDP(40000, 40001, payload)}
}

// sendAll sends one packet of each way in which a pod's own packets, and forged ones, go. It
// returns how many of a family are forged.
func (s *sourceScene) sendAll(p *post, forgedPass bool) uint64 {
	gateway := s.node.MAC(s.t, s.node.Port(s.hosts["alone"]))
	uplink := s.node.MAC(s.t, s.node.Port(s.hosts["remote"]))
	own := func(name string, family int) netip.Addr { return s.hosts[name].Addrs[family] }
	for family := range 2 {
		send := func(from, to string, mac net.HardwareAddr, source netip.Addr, passes bool) {
			p.send(from, to, mac, passes, datagram(source, own(to, family), p.payload(40)), "%s -> %s from %s", from, to, source)
		}
		send("a", "b", p.macs["b"], own("a", family), true)
		send("a", "remote", p.bridge, own("a", family), true)
		send("alone", "a", gateway, own("alone", family), true)
		send("remote", "a", uplink, own("remote", family), true)
		send("remote", "a", uplink, own("b", family), true) // by no pod's link
		send("router", "b", p.macs["b"], own("remote", family), true)
		send("router", "b", p.macs["b"], own("a", family), true)

		send("a", "b", p.macs["b"], own("remote", family), forgedPass)
		send("a", "b", p.macs["b"], own("router", family), forgedPass)
		send("a", "b", p.macs["b"], own("b", family), forgedPass)
		send("a", "remote", p.bridge, own("b", family), forgedPass)
		send("alone", "a", gateway, own("remote", family), forgedPass)
		send("alone", "a", gateway, own("b", family), forgedPass)

		send("remote", "b", uplink, own("remote", family), true)
		for _, from := range []string{"b", "a"} { // of a known connection
			answer := datagram(own("b", family), own("remote", family), p.payload(40))
			binary.BigEndian.PutUint32(answer.Payload, 40001<<16|40000)
			p.send(from, "remote", p.bridge, from == "b" || forgedPass, answer, "an answer of b's, by %s", from)
		}
		toNode := datagram(own("remote", family), s.node.Addrs[family], nil)
		require.NoError(s.t, p.senders["a"](nodetest.Ethernet(p.macs["a"], p.bridge, toNode.EtherType(), toNode.Bytes())))
	}
	s.sendUnaddressed(p)
	return 8
}

// sendUnaddressed sends what a host sends before it has an address, and by link-local ones.
func (s *sourceScene) sendUnaddressed(p *post) {
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	p.send("a", "b", broadcast, true, nodetest.Packet{
		From: netip.IPv4Unspecified(), To: netip.MustParseAddr("255.255.255.255"), Protocol: unix.IPPROTO_UDP, Hops: 64,
		Payload: nodetest.UDP(68, 67, p.payload(40)),
	}, "DHCP")
	solicited := net.HardwareAddr{0x33, 0x33, 0xff, 0, 0, 0x11}
	p.send("a", "b", solicited, true, nodetest.Packet{
		From: netip.IPv6Unspecified(), To: netip.MustParseAddr("ff02::1:ff00:11"), Protocol: unix.IPPROTO_ICMPV6, Hops: 255,
		Payload: message6(135, p.payload(20)),
	}, "duplicate address detection")
	p.send("a", "b", p.macs["b"], true, datagram(netip.MustParseAddr("fe80::a"), s.hosts["b"].Addrs[1], p.payload(40)), "link-local")
}

// A pod that sends forged packets is named as long as it runs, and no other pod: not one that has
// its link afterwards, either.
func TestPodsThatSpoofAreNamed(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := newSourceScene(t, backend)
		s.begin(SpoofingCount)
		s.forged()
		require.Empty(t, s.enforcer.sources.spoofing.names())
		s.requireJudged("a", true)
		s.forged()
		named := map[types.NamespacedName]bool{{Namespace: "default", Name: "a"}: true}
		require.Equal(t, named, s.enforcer.sources.spoofing.names(), s.dump())
		s.forged()
		require.Equal(t, named, s.enforcer.sources.spoofing.names())

		s.requireJudged("a", true) // counted by the link, which then is another pod's
		link := s.node.Port(s.hosts["a"])
		s.stops("a")
		s.hosts["other"] = s.node.AddPod(t, "10.244.1.31", "fd00:10:244:1::31")
		s.node.RenamePort(t, s.hosts["other"], link)
		s.starts("default", "other")
		for range 2 {
			s.forged()
			require.Empty(t, s.enforcer.sources.spoofing.names(), s.dump())
		}
	})
}

// A packet with a source that isn't its pod's own is counted, or dropped, by whatever kind of
// link it comes. A pod's own packets are neither, nor are those of exempt pods and of other
// nodes.
func TestForgedSources(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := newSourceScene(t, backend)
		s.begin(SpoofingCount)
		p := newPost(s.scene, "a", "b", "router", "alone", "remote")
		require.Equal(t, counts(0), s.forged(), s.dump())
		sent := s.sendAll(p, true)
		p.requireDelivery()
		require.Equal(t, counts(sent), s.forged(), s.dump())

		s.begin(SpoofingDrop)
		s.sendAll(p, false)
		p.requireDelivery()
		require.NotEqual(t, counts(0), s.forged())

		s.begin(SpoofingOff)
		s.sendAll(p, true)
		p.requireDelivery()
		for _, chain := range []string{compile.SourceChain, compile.OriginChain, compile.ForgedChain} {
			require.NotContains(t, s.dump(), chain)
		}
	})
}

// requireJudged requires that a pod's own packets arrive at b and are not counted, and that
// forged ones are dropped, or else arrive.
func (s *sourceScene) requireJudged(name string, forgedPass bool) {
	s.t.Helper()
	p := newPost(s.scene, name, "b")
	for family := range 2 {
		to := s.hosts["b"].Addrs[family]
		own, stranger := s.hosts[name].Addrs[family], s.hosts["remote"].Addrs[family]
		p.send(name, "b", p.macs["b"], true, datagram(own, to, p.payload(40)), "own packet of %s", name)
		p.send(name, "b", p.macs["b"], forgedPass, datagram(stranger, to, p.payload(40)), "forged packet of %s", name)
	}
	p.requireDelivery()
}

// A link is its present pod's: of a pod that is made again with another link, and of another
// pod whose link has a name that one before had. A namespace's label counts from when it
// is set to when it is taken away.
func TestSourcesFollowTheRuntime(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := newSourceScene(t, backend)
		s.begin(SpoofingDrop)
		start := func(name, addr4, addr6, link string) {
			s.hosts[name] = s.node.AddPod(t, addr4, addr6)
			if link != "" {
				s.node.RenamePort(t, s.hosts[name], link)
			}
			s.starts("default", name)
			s.sync()
		}
		start("again", "10.244.1.30", "fd00:10:244:1::30", "")
		s.requireJudged("again", false)
		link := s.node.Port(s.hosts["again"])
		s.stops("again")
		start("again", "10.244.1.30", "fd00:10:244:1::30", "")
		require.NotEqual(t, link, s.node.Port(s.hosts["again"]))
		s.requireJudged("again", false)

		start("other", "10.244.1.31", "fd00:10:244:1::31", link)
		s.requireJudged("other", false)
		s.namespace("default", map[string]string{v1alpha1.AllowSpoofingLabel: "true"})
		s.sync()
		s.requireJudged("other", true)
		s.namespace("default", map[string]string{v1alpha1.AllowSpoofingLabel: "false"})
		s.sync()
		s.requireJudged("other", false)
	})
}

// Where the kernel can't tell ports of a bridge apart, rules do without, and the node says so.
func TestSourcesWithoutBridgePorts(t *testing.T) {
	backends := []iptables.Backend{iptables.NFT, iptables.Legacy}
	for _, backend := range backends {
		t.Run(string(backend), func(t *testing.T) {
			s := newSourceScene(t, backend)
			withoutExtension(t, "physdev")
			s.begin(SpoofingDrop)
			require.Equal(t, "IPv4: [physdev]; IPv6: [physdev]", s.enforcer.extensions.String())
			s.requireJudged("a", true)
			gateway := s.node.MAC(t, s.node.Port(s.hosts["alone"]))
			p := newPost(s.scene, "alone", "b")
			for family, addr := range s.hosts["remote"].Addrs {
				p.send("alone", "b", gateway, false, datagram(addr, s.hosts["b"].Addrs[family], p.payload(40)), "forged, by a link of its own")
			}
			p.requireDelivery()
		})
	}
}

// restores returns how often rules were written.
func (s *sourceScene) restores() float64 {
	s.t.Helper()
	return metricstest.Scrape(s.t, s.enforcer.metrics)["iptables_restores_total success"]
}

// Where forged packets are only counted, pods that nothing isolates start and end without a
// rule being written, until a while has passed. But no pod's own packets are counted as
// forged: a link that has another pod now is the new one's at once.
func TestCountingWaits(t *testing.T) {
	t.Parallel()
	s := newSourceScene(t, iptables.NFT)
	s.begin(SpoofingCount)
	s.enforcer.sources.every = time.Hour
	start := func(name, addr4, addr6 string) {
		s.hosts[name] = s.node.AddPod(t, addr4, addr6)
		s.starts("default", name)
	}
	before, link := s.restores(), s.node.Port(s.hosts["a"])
	start("late", "10.244.1.30", "fd00:10:244:1::30")
	s.sync()
	s.stops("a")
	s.sync()
	require.Equal(t, before, s.restores())
	s.requireJudged("late", true)
	require.Equal(t, counts(0), s.forged(), "nothing is known of its link")

	start("other", "10.244.1.31", "fd00:10:244:1::31")
	s.node.RenamePort(t, s.hosts["other"], link)
	s.starts("default", "other")
	s.sync()
	require.Greater(t, s.restores(), before)
	s.requireJudged("other", true)
	require.Equal(t, counts(1), s.forged(), s.dump())

	before = s.restores()
	s.stops("late")
	s.sync()
	require.Equal(t, before, s.restores())
	require.True(t, s.enforcer.sources.behind)
	s.enforcer.sources.every = 0
	s.sync()
	require.Greater(t, s.restores(), before)
	require.False(t, s.enforcer.sources.behind)
}

// A pod of which the runtime doesn't tell the network namespace, or whose namespace has
// several links, is left alone, and so is one that the runtime doesn't know.
func TestUnknownLinksAreLeftAlone(t *testing.T) {
	t.Parallel()
	s := newSourceScene(t, iptables.NFT)
	s.begin(SpoofingDrop)
	require.Zero(t, s.enforcer.sources.unjudged)
	s.requireJudged("a", false)

	sandbox := s.running["a"]
	sandbox.ID, sandbox.NetNS = "untold", ""
	s.model.StartSandbox(sandbox)
	s.sync()
	require.Equal(t, 1, s.enforcer.sources.unjudged)
	s.requireJudged("a", true)

	sandbox.ID, sandbox.NetNS = "two links", "a"
	require.NoError(t, s.node.Do(func() error {
		file, err := s.hosts["a"].OpenNamespace()
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "second", TxQLen: -1}, PeerName: "eth1", PeerNamespace: netlink.NsFd(file.Fd()),
		})
	}))
	s.model.StartSandbox(sandbox)
	s.sync()
	require.Equal(t, 1, s.enforcer.sources.unjudged)
	s.requireJudged("a", true)

	s.pod("default", "unheard", nil, "10.244.1.40", "fd00:10:244:1::40")
	s.sync()
	require.Equal(t, 2, s.enforcer.sources.unjudged)
	s.requireJudged("unheard", true)
}
