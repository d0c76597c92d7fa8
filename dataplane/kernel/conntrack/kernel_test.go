package conntrack_test

import (
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/conntrack"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/policy"
)

// answerWithin bounds how long an answer may take that is sure to come: a probe that is lost
// on a busy machine is sent again after a second.
const answerWithin = 5 * time.Second

// What the kernel has of connections is read, in both families, and deleted one by
// one.
func TestTable(t *testing.T) {
	nodetest.RequireKernel(t)
	node := nodetest.NewNode(t)
	pod := node.AddPod(t, "10.244.1.10", "fd00:10:244:1::10")
	remote := node.AddRemote(t, "10.244.2.10", "fd00:10:244:2::10")
	track(t, node)
	pod.ServeTCP(t, 80)
	pod.ServeUDP(t, 53)
	pod.ServeSCTP(t, 80)
	want := map[conntrack.Class]bool{}
	for i, addr := range pod.Addrs {
		require.True(t, remote.TCP(addr, 80, answerWithin))
		require.True(t, remote.UDP(addr, 53, answerWithin))
		require.True(t, remote.SCTP(addr, 80, answerWithin))
		require.True(t, remote.Ping(addr, answerWithin))
		client := remote.Addrs[i]
		want[conntrack.Class{Client: client, Server: addr, Protocol: policy.TCP, Port: 80, Answer: 80}] = true
		want[conntrack.Class{Client: client, Server: addr, Protocol: policy.UDP, Port: 53, Answer: 53}] = true
		want[conntrack.Class{Client: client, Server: addr, Protocol: policy.SCTP, Port: 80, Answer: 80}] = true
	}
	want[conntrack.Class{Client: remote.Addrs[0], Server: pod.Addrs[0], Protocol: policy.ICMP, Port: 8 << 8}] = true
	want[conntrack.Class{Client: remote.Addrs[1], Server: pod.Addrs[1], Protocol: policy.ICMPv6, Port: 128 << 8, Answer: 129 << 8}] = true

	table := open(t, node)
	list := func() map[conntrack.Class]bool {
		seen := map[conntrack.Class]bool{}
		require.NoError(t, table.List(func(e *conntrack.Entry) { seen[e.Class] = true }))
		return seen
	}
	seen := list()
	for class := range want {
		require.Contains(t, seen, class)
	}

	scan := conntrack.Scan{Released: conntrack.Addresses{pod.Addrs[0]: {}}}
	require.NoError(t, table.List(scan.Add))
	require.NoError(t, table.Delete(scan.Forget))
	require.NoError(t, table.Delete(scan.Forget), "they are gone already")
	left := list()
	for class := range want {
		require.Equal(t, class.Server == pod.Addrs[1], left[class], "%+v", class)
	}
}

// track makes a rule that makes the kernel track connections, and keep those that ended: it
// forgets those of SCTP three seconds later.
func track(t *testing.T, node *nodetest.Node) {
	t.Helper()
	for _, program := range []string{"iptables-nft", "ip6tables-nft"} {
		require.NoError(t, node.Do(func() error {
			return exec.Command(program, "-t", "mangle", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID").Run()
		}))
	}
	require.NoError(t, node.Do(func() error {
		for _, state := range []string{"closed", "shutdown_sent", "shutdown_recd", "shutdown_ack_sent"} {
			if err := nodetest.SetSysctl("netfilter/nf_conntrack_sctp_timeout_"+state, "60"); err != nil {
				return err
			}
		}
		return nil
	}))
}

func open(t *testing.T, node *nodetest.Node) *conntrack.Table {
	t.Helper()
	var table *conntrack.Table
	require.NoError(t, node.Do(func() (err error) {
		table, err = conntrack.Open()
		return err
	}))
	t.Cleanup(table.Close)
	return table
}

// TestALargeTable says with -v what a scan of 100,000 connections takes. It asserts
// that the scan takes no memory for connections that no policy may forbid.
func TestALargeTable(t *testing.T) {
	nodetest.RequireKernel(t)
	node := nodetest.NewNode(t)
	pod := node.AddPod(t, "10.244.1.10")
	remote := node.AddRemote(t, "10.244.2.10")
	track(t, node)
	const clients, ports = 2, 50_000
	for range clients {
		require.NoError(t, remote.Do(func() error {
			conn, err := net.ListenPacket("udp4", ":0")
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			for port := range ports {
				_, _ = conn.WriteTo([]byte("moat"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(pod.Addrs[0], uint16(1+port))))
			}
			return nil
		}))
	}
	table := open(t, node)
	var count int
	var took time.Duration
	memory := testing.AllocsPerRun(3, func() {
		scan := conntrack.Scan{}
		start := time.Now()
		require.NoError(t, table.List(scan.Add))
		took, count = time.Since(start), scan.Entries
	})
	require.Greater(t, count, clients*ports*9/10)
	require.Less(t, memory, 5000.0, "allocations")
	t.Logf("%d connections, %s, %.0f allocations", count, took, memory)
}
