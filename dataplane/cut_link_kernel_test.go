package dataplane

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/moat-dev/moat/dataplane/flows"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
)

// linkRestrictions are policies of role=db that forbid nothing between the addresses
// that the API knows, and still close the link.
var linkRestrictions = map[string]string{
	"ingress": `{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: "10.244.0.0/16"}}, {ipBlock: {cidr: "fd00::/8"}}]}]}`,
	"egress":  restrictions["egress"],
}

func (s *scene) restrict(direction string) func() {
	return func() { s.apply("metadata: {name: row}\nspec: " + linkRestrictions[direction]) }
}

// linkScene has three pods on one bridge, one of them without an IPv6 address but the
// link-local one that all have.
func linkScene(t *testing.T, backend iptables.Backend) *scene {
	t.Helper()
	s := newScene(t, backend)
	s.namespace("default", nil)
	s.pod("default", "db", map[string]string{"role": "db"}, "10.244.1.10", "fd00:10:244:1::10")
	s.pod("default", "open", nil, "10.244.1.11", "fd00:10:244:1::11")
	s.pod("default", "bare", nil, "10.244.1.12")
	require.NoError(t, s.hosts["bare"].Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		_, pods, err := net.ParseCIDR("fd00:10:244:1::/64")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: pods, Scope: netlink.SCOPE_LINK})
	}))
	s.sync() // until there is a rule that asks for it, the kernel tracks no connections
	return s
}

// linkLocalOf returns the link-local address of a host as others of its bridge write it.
func (s *scene) linkLocalOf(name string) netip.Addr {
	s.t.Helper()
	return linkLocal(s.t, s.hosts[name], "eth0").WithZone("eth0")
}

// openLinkLocal opens what the restrictions forbid: streams with a link-local address
// at either end.
func (s *scene) openLinkLocal() streams {
	s.t.Helper()
	forbidden := streams{}
	for _, ends := range [][2]string{{"open", "db"}, {"db", "open"}, {"open", "bare"}} {
		addr := s.linkLocalOf(ends[1])
		forbidden.openTo(s.t, ends[0]+" -> "+ends[1], s.hosts[ends[0]], s.hosts[ends[1]], addr, addr)
	}
	known := s.hosts["db"].Addrs[1]
	forbidden.openTo(s.t, "bare -> db", s.hosts["bare"], s.hosts["db"], known, known)
	return forbidden
}

// openElsewhere opens link-local streams of the node itself and of links that no pod is
// behind: a host next to the node, and two on a bridge that isn't the pods'.
func (s *scene) openElsewhere() streams {
	s.t.Helper()
	kept := streams{}
	db := linkLocal(s.t, s.hosts["db"], "eth0")
	kept.openTo(s.t, "node -> db", s.node.Host, s.hosts["db"], db.WithZone("cni0"), db.WithZone("eth0"))

	router := s.node.AddRemote(s.t, "192.168.9.9") // veth4
	node := netip.MustParseAddr("fe80::1")
	kept.openTo(s.t, "router -> node", router, s.node.Host, node.WithZone("eth0"), node.WithZone("veth4"))
	addr := linkLocal(s.t, router, "eth0")
	kept.openTo(s.t, "node -> router", s.node.Host, router, addr.WithZone("veth4"), addr.WithZone("eth0"))

	left, right := s.node.AddRemote(s.t, "192.168.9.10"), s.node.AddRemote(s.t, "192.168.9.11")
	s.bridge("br9", "veth5", "veth6")
	addr = linkLocal(s.t, right, "eth0").WithZone("eth0")
	kept.openTo(s.t, "left -> right", left, right, addr, addr)
	return kept
}

// bridge joins links of the node.
func (s *scene) bridge(name string, ports ...string) {
	s.t.Helper()
	require.NoError(s.t, s.node.Do(func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, TxQLen: -1}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		for _, port := range ports {
			link, err := netlink.LinkByName(port)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetMaster(link, bridge); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(bridge)
	}))
}

// forgetNeighbours makes a host look for its neighbours anew.
func forgetNeighbours(t *testing.T, host *nodetest.Host) {
	t.Helper()
	require.NoError(t, host.Do(func() error {
		neighbours, err := netlink.NeighList(0, netlink.FAMILY_V6)
		for i := range neighbours {
			if neighbours[i].State&netlink.NUD_NOARP == 0 {
				_ = netlink.NeighDel(&neighbours[i])
			}
		}
		return err
	}))
}

// When a policy closes a link for link-local addresses, connections that use them there
// are cut in both directions, and they go on when it opens. Those between addresses that
// the API knows lose nothing, nor do those of the node and of other links.
func TestLinkLocalConnectionsAreCut(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := linkScene(t, backend)
		defer s.runAgent()()
		forbidden := s.openLinkLocal()
		kept := s.openElsewhere()
		kept.open(t, "open -> db", s.hosts["open"], s.hosts["db"])
		kept.open(t, "db -> open", s.hosts["db"], s.hosts["open"])
		toNode := nodetest.StreamPing(t, s.hosts["db"], linkLocal(t, s.node.Host, "cni0").WithZone("eth0"))
		kept["db -> node"] = toNode
		for _, name := range []string{"ingress", "egress"} {
			t.Log(name)
			forbidden.requireFlow(s)
			if name == "egress" { // what pods send to the node is sent, too
				delete(kept, "db -> node")
				forbidden["db -> node"] = toNode
			}
			forbidden.requireCut(s, s.restrict(name))
			require.NotContains(t, strings.Join(s.cut(), ""), ",fe80::1\n", "what comes to the node by another link is looked for in vain")
			kept.requireFlow(s)
			forgetNeighbours(t, s.hosts["open"])
			require.True(t, s.hosts["open"].TCP(s.hosts["db"].Addrs[1], 80, answerWithin), "neighbours aren't found any more")
			s.remove("row")
			forbidden.requireFlow(s)
			kept.requireFlow(s)
			kept.requireWhole(s)
			require.Eventually(t, func() bool { return len(s.cut()) == 0 }, 5*time.Second, 50*time.Millisecond)
		}
	})
}

// What is cut by link stays cut when the agent restarts, and goes on when the link is
// open by then.
func TestLinkLocalCutsOutliveTheAgent(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := linkScene(t, backend)
		stop := s.runAgent()
		defer func() { stop() }()
		forbidden := s.openLinkLocal()
		forbidden.requireCut(s, s.restrict("egress"))
		before := forbidden.came()
		stop = s.restartAfter(stop)
		time.Sleep(cutWithin)
		require.Equal(t, before, forbidden.came(), "the new agent lets packets pass")

		stop()
		s.remove("row")
		s.restart(backend)
		stop = s.runAgent()
		forbidden.requireFlow(s)
	})
}

// Once the kernel has forgotten a connection of a link-local client, what the server
// sends again would begin one to the client, which is allowed where the link is closed
// for what pods send alone.
func TestWhatComesLateIsCutByLinkToo(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := linkScene(t, backend)
		defer s.runAgent()()
		all := streams{}
		to := port(s.hosts["db"].Addrs[1])
		all["TCP"] = nodetest.StreamTCP(t, s.hosts["bare"], s.hosts["db"], to, to)
		all.requireFlow(s)
		all.requireCut(s, s.restrict("egress"))
		before := all.came()
		require.NoError(t, s.node.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
		time.Sleep(4 * cutWithin) // the server sends again, in ever longer distances
		require.Equal(t, before, all.came())
		s.remove("row")
		all.requireFlow(s)
	})
}

// A link that comes to lead to an isolated pod, as a look at the routes finds, closes
// for connections too, and opens again.
func TestConnectionsFollowTheRoutes(t *testing.T) {
	s := linkScene(t, iptables.NFT)
	pod := s.pods["db"].DeepCopy()
	pod.Status.PodIPs = pod.Status.PodIPs[:1]
	pod.Status.PodIPs[0].IP = "10.244.3.3"
	s.update(pod)
	s.restrict("ingress")()
	s.sync()
	addr := s.linkLocalOf("open")
	stream := streams{"ping": nodetest.StreamPing(t, s.hosts["bare"], addr)}
	stream.requireFlow(s)
	s.comeToRest()
	look := func() {
		t.Helper()
		s.inspect()
		s.sync()
		require.Equal(t, flows.ScansPerChange, s.enforcer.cutter.Due(), "no look was asked for")
		s.enforcer.cutter.Scan(time.Now())
		s.sync()
	}
	for s.enforcer.cutter.Due() > flows.ScansPerChange { // the first sync found no hooks, and asks for more
		s.enforcer.cutter.Scan(time.Now())
	}
	look()
	require.Empty(t, s.cut(), "the pod is nowhere")

	s.route("10.244.3.0/24", "cni0", "")
	look()
	require.NotEmpty(t, s.cut())
	stream.requireCut(s, func() {})

	s.unroute("10.244.3.0/24")
	s.inspect()
	s.sync()
	require.Empty(t, s.cut())
	stream.requireFlow(s)
}

// unroute takes a route of the node away.
func (s *scene) unroute(to string) {
	s.t.Helper()
	require.NoError(s.t, s.node.Do(func() error {
		_, prefix, err := net.ParseCIDR(to)
		if err != nil {
			return err
		}
		return netlink.RouteDel(&netlink.Route{Dst: prefix, Scope: netlink.SCOPE_LINK})
	}))
}

// What goes to a group has no answer: the next packet of a socket that sent before is
// judged as new, and nothing has to be cut.
func TestWhatGoesToGroupsIsNeverEstablished(t *testing.T) {
	s := linkScene(t, iptables.NFT)
	received := listen(t, s.hosts["db"])
	for _, group := range groups {
		var conn net.Conn
		require.NoError(t, s.hosts["open"].Do(func() (err error) {
			conn, err = net.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr(group), groupPort).String())
			return err
		}))
		send := func(when string, want bool) {
			t.Helper()
			s.sync()
			_, err := conn.Write([]byte(when + group))
			require.NoError(t, err)
			require.Equal(t, want, hears(received, when+group, want), "%s\n%s", group, s.dump())
		}
		send("before", true)
		s.restrict("ingress")()
		send("meanwhile", false)
		s.remove("row")
		send("after", true)
		require.NoError(t, conn.Close())
	}
}
