package dataplane

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
)

// A pod must not give an isolated pod of its node one more address, under which no
// policy would be asked.
func TestPodsDoNotAdvertiseThemselvesAsRouters(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		for name, spec := range restrictions {
			t.Run(name, func(t *testing.T) {
				s := bridgeScene(t, backend)
				if spec != "" {
					s.apply("metadata: {name: row}\nspec: " + spec)
				}
				s.sync()
				db, prefix := s.hosts["db"], netip.MustParsePrefix("fd00:bad::/64")
				require.NoError(t, db.Do(func() error { return nodetest.SetSysctl("ipv6/conf/eth0/accept_ra", "1") }))
				linkLocal(t, db, "eth0")
				linkLocal(t, s.hosts["open"], "eth0")
				linkLocal(t, s.node.Host, "cni0")

				advertise(t, s.hosts["open"], "eth0", prefix)
				restricted := name == "ingress" || name == "egress"
				require.Equal(t, !restricted, takesAddress(db, prefix, patience(!restricted)), s.dump())

				own := netip.MustParsePrefix("fd00:600d::/64")
				advertise(t, s.node.Host, "cni0", own)
				require.True(t, takesAddress(db, own, answerWithin), "the node is the router of its pods")
			})
		}
	})
}

// advertise sends a router advertisement (RFC 4861, 4.2) from which hosts take an
// address in the prefix (RFC 4862), to all of the link.
func advertise(t *testing.T, from *nodetest.Host, link string, prefix netip.Prefix) {
	t.Helper()
	message := make([]byte, 48)
	message[0], message[4] = 134, 64               // type; hop limit; the kernel adds the checksum
	copy(message[16:], []byte{3, 4, 64, 0xc0})     // prefix information: length, on-link and autonomous
	binary.BigEndian.PutUint32(message[20:], 3600) // valid, seconds
	binary.BigEndian.PutUint32(message[24:], 3600) // preferred, seconds
	copy(message[32:], prefix.Masked().Addr().AsSlice())
	all := &net.IPAddr{IP: net.ParseIP("ff02::1"), Zone: link}
	require.NoError(t, from.Do(func() error {
		conn, err := net.DialIP("ip6:ipv6-icmp", nil, all)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		var optionErr error
		if err := raw.Control(func(fd uintptr) {
			optionErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255)
		}); err != nil {
			return err
		}
		if optionErr != nil {
			return optionErr
		}
		_, err = conn.Write(message)
		return err
	}))
}

// takesAddress reports whether the host gets an address in the prefix.
func takesAddress(host *nodetest.Host, prefix netip.Prefix, within time.Duration) bool {
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		var addrs []netlink.Addr
		err := host.Do(func() error {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			addrs, err = netlink.AddrList(link, netlink.FAMILY_V6)
			return err
		})
		if err == nil && slices.ContainsFunc(addrs, func(a netlink.Addr) bool {
			addr, _ := netip.AddrFromSlice(a.IP)
			return prefix.Contains(addr)
		}) {
			return true
		}
	}
	return false
}
