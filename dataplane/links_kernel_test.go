package dataplane

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
)

// groups are addresses under which the kernel of every pod of the bridge listens
// besides its own.
var groups = []string{"10.244.1.255", "255.255.255.255", "224.0.0.1", "ff02::1%eth0"}

// Ports of the test: that of all groups, and one of the node itself.
const (
	groupPort = 9999
	nodePort  = 10250
)

// restrictions are policies of role=db.
var restrictions = map[string]string{
	"none":        "",
	"ingress":     `{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress]}`,
	"egress":      `{podSelector: {matchLabels: {role: db}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: "0.0.0.0/0"}}, {ipBlock: {cidr: "::/0"}}]}]}`,
	"allowed all": `{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}`,
}

// Two pods on a bridge also have addresses that the API doesn't know: link-local
// ones and those of multicast and broadcast. What isolates one of them closes these
// for both.
func TestPodsOnABridgeDoNotMeetUnderUnknownAddresses(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		for name, spec := range restrictions {
			t.Run(name, func(t *testing.T) {
				s := bridgeScene(t, backend)
				if spec != "" {
					s.apply("metadata: {name: row}\nspec: " + spec)
				}
				s.sync()
				s.requireLinkLocal(name)
				s.requireGroups(name)
			})
		}
	})
}

// bridgeScene is a node without IPv6 on its pod network: its pods have link-local
// addresses all the same.
func bridgeScene(t *testing.T, backend iptables.Backend) *scene {
	t.Helper()
	s := newScene(t, backend)
	s.namespace("default", nil)
	s.pod("default", "db", map[string]string{"role": "db"}, "10.244.1.10")
	s.pod("default", "open", nil, "10.244.1.11")
	s.node.ServeTCP(t, nodePort)
	return s
}

// requireLinkLocal tries the link-local addresses of the pods and of their node.
func (s *scene) requireLinkLocal(restricted string) {
	s.t.Helper()
	db, open := s.hosts["db"], s.hosts["open"]
	dbAddr, openAddr := linkLocal(s.t, db, "eth0"), linkLocal(s.t, open, "eth0")
	nodeAddr := linkLocal(s.t, s.node.Host, "cni0")
	try := func(want bool, from *nodetest.Host, to netip.Addr, port uint16) {
		s.t.Helper()
		require.Equal(s.t, want, from.TCP(to.WithZone("eth0"), port, patience(want)), s.dump())
	}
	out := restricted == "egress"
	between := !out && restricted != "ingress"
	try(between, open, dbAddr, 80)
	try(between, db, openAddr, 80)
	require.Equal(s.t, between, open.UDP(dbAddr.WithZone("eth0"), 53, patience(between)), s.dump())
	try(!out, db, nodeAddr, nodePort)
	require.True(s.t, s.node.TCP(dbAddr.WithZone("cni0"), 80, answerWithin), "a node reaches its own pods")
	require.True(s.t, db.TCP(open.Addrs[0], 80, answerWithin), "addresses that the API knows are judged by policies alone")
}

// requireGroups sends to every group from each pod. The source is known to the API
// in IPv4, and link-local in IPv6.
func (s *scene) requireGroups(restricted string) {
	s.t.Helper()
	db, open, node := listen(s.t, s.hosts["db"]), listen(s.t, s.hosts["open"]), listen(s.t, s.node.Host)
	for _, group := range groups {
		addr := netip.MustParseAddr(group)
		out := restricted == "egress" && addr.Is6()
		between := !out && restricted != "ingress"
		shout(s.t, s.hosts["open"], addr, "from open to "+group)
		shout(s.t, s.hosts["db"], addr, "from db to "+group)
		require.Equal(s.t, between, hears(db, "from open to "+group, between), "%s\n%s", group, s.dump())
		require.Equal(s.t, between, hears(open, "from db to "+group, between), "%s\n%s", group, s.dump())
		require.Equal(s.t, !out, hears(node, "from db to "+group, !out), "%s\n%s", group, s.dump())
	}
	for _, group := range []string{"10.244.1.255", "ff02::1%cni0"} {
		shout(s.t, s.node.Host, netip.MustParseAddr(group), "from the node")
		require.True(s.t, hears(db, "from the node", true), "a node reaches its own pods by %s\n%s", group, s.dump())
	}
}

// linkLocal returns the link-local address that a host's kernel gave its interface,
// once duplicate address detection lets it be used.
func linkLocal(t *testing.T, host *nodetest.Host, name string) netip.Addr {
	t.Helper()
	var found netip.Addr
	require.Eventually(t, func() bool {
		err := host.Do(func() error {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
			for _, addr := range addrs {
				if addr.IP.IsLinkLocalUnicast() && addr.Flags&unix.IFA_F_TENTATIVE == 0 {
					found = netip.AddrFrom16([16]byte(addr.IP))
				}
			}
			return err
		})
		return err == nil && found.IsValid()
	}, 10*time.Second, 20*time.Millisecond)
	return found
}

// listen receives datagrams for groupPort of any address of the host, as text. One socket for
// both families would miss IPv4 multicast.
func listen(t *testing.T, host *nodetest.Host) <-chan string {
	t.Helper()
	received := make(chan string, 64)
	require.NoError(t, host.Do(func() error {
		for _, network := range []string{"udp4", "udp6"} {
			conn, err := net.ListenPacket(network, fmt.Sprintf(":%d", groupPort))
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = conn.Close() })
			go func() {
				buffer := make([]byte, 1500)
				for {
					n, _, err := conn.ReadFrom(buffer)
					if err != nil {
						return
					}
					received <- string(buffer[:n])
				}
			}()
		}
		return nil
	}))
	return received
}

// shout sends one datagram to a group.
func shout(t *testing.T, from *nodetest.Host, group netip.Addr, text string) {
	t.Helper()
	require.NoError(t, from.Do(func() error {
		conn, err := net.Dial("udp", netip.AddrPortFrom(group, groupPort).String())
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_, err = conn.Write([]byte(text))
		return err
	}))
}

// hears reports whether the text comes. What came before it is passed over.
func hears(received <-chan string, text string, want bool) bool {
	timeout := time.After(patience(want))
	for {
		select {
		case got := <-received:
			if got == text {
				return true
			}
		case <-timeout:
			return false
		}
	}
}
