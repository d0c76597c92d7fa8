package nodetest_test

import (
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/nodetest"
)

// answerWithin bounds how long an answer may take that is sure to come: a probe that is lost
// on a busy machine is sent again after a second.
const answerWithin = 5 * time.Second

// Without rules everything must reach everything: a probe that fails for another
// reason would make every test of a drop pass.
func TestAnOpenNetworkIsOpen(t *testing.T) {
	nodetest.RequireKernel(t)
	node := nodetest.NewNode(t)
	hosts := []*nodetest.Host{
		node.AddPod(t, "10.244.1.10", "fd00:10:244:1::10"),
		node.AddPod(t, "10.244.1.11", "fd00:10:244:1::11"),
		node.AddRemote(t, "10.244.2.10", "fd00:10:244:2::10"),
		node.AddRemote(t, "172.17.0.10", "2001:db8:17::10"),
	}
	for _, host := range hosts {
		host.ServeTCP(t, 80)
		host.ServeUDP(t, 53)
		host.ServeSCTP(t, 80)
	}
	for _, from := range append(hosts, node.Host) {
		for _, to := range hosts {
			for _, addr := range to.Addrs {
				require.True(t, from.Ping(addr, answerWithin), "ping %s to %s", from.Addrs, addr)
				require.True(t, from.TCP(addr, 80, answerWithin), "tcp %s to %s", from.Addrs, addr)
				require.True(t, from.UDP(addr, 53, answerWithin), "udp %s to %s", from.Addrs, addr)
				require.True(t, from.SCTP(addr, 80, answerWithin), "sctp %s to %s", from.Addrs, addr)
				require.True(t, from.DamagedSCTP(addr, 80, answerWithin), "damaged sctp %s to %s", from.Addrs, addr)
				require.False(t, from.TCP(addr, 81, time.Second), "nobody serves port 81")
			}
		}
	}
}

// Conntrack checks the checksums of SCTP packets: it tells whether ours are right.
func TestConntrackKnowsSCTP(t *testing.T) {
	nodetest.RequireKernel(t)
	node := nodetest.NewNode(t)
	pod := node.AddPod(t, "10.244.1.10", "fd00:10:244:1::10")
	remote := node.AddRemote(t, "10.244.2.10", "fd00:10:244:2::10")
	pod.ServeSCTP(t, 80)
	invalid := func() (lines string) {
		for _, program := range []string{"iptables-nft-save", "ip6tables-nft-save"} {
			require.NoError(t, node.Do(func() error {
				output, err := exec.Command(program, "-c", "-t", "mangle").Output()
				lines += strings.Join(regexp.MustCompile(`\[\d+:\d+\] -A FORWARD`).FindAllString(string(output), -1), " ")
				return err
			}))
		}
		return lines
	}
	for _, program := range []string{"iptables-nft", "ip6tables-nft"} {
		require.NoError(t, node.Do(func() error {
			return exec.Command(program, "-t", "mangle", "-A", "FORWARD", "-p", "sctp", "--dport", "80", "-m", "conntrack", "--ctstate", "INVALID").Run()
		}))
	}
	for _, addr := range pod.Addrs {
		require.True(t, remote.SCTP(addr, 80, answerWithin), "%s", addr)
		require.False(t, remote.SCTP(addr, 81, 50*time.Millisecond), "nobody serves port 81")
	}
	require.Equal(t, "[0:0] -A FORWARD[0:0] -A FORWARD", invalid())
	for _, addr := range pod.Addrs {
		require.True(t, remote.DamagedSCTP(addr, 80, answerWithin))
	}
	require.Equal(t, "[1:52] -A FORWARD[1:72] -A FORWARD", invalid())
}

// A requirement that fails on a thread of the host's ends the test that asked for it.
func TestAFunctionThatEndsItsGoroutine(t *testing.T) {
	nodetest.RequireKernel(t)
	node := nodetest.NewNode(t)
	ended := make(chan bool)
	go func() {
		returned := false
		defer func() { ended <- !returned }()
		_ = node.Do(func() error {
			runtime.Goexit()
			return nil
		})
		returned = true
	}()
	select {
	case right := <-ended:
		require.True(t, right, "it went on")
	case <-time.After(5 * time.Second):
		require.Fail(t, "it hangs")
	}
}
