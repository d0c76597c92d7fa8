package dataplane

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
)

// kube-router 506, 702: a lock that another program holds delays a sync and
// doesn't break it. The nft backend has no lock.
func TestALockThatIsHeldDelaysASync(t *testing.T) {
	s := walkThroughScene(t, iptables.Legacy)
	s.label("test-np", map[string]string{"role": "db"})
	lock := filepath.Join(t.TempDir(), "xtables.lock")
	t.Setenv("XTABLES_LOCKFILE", lock)
	s.sync()

	file, err := os.Create(lock)
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	require.NoError(t, unix.Flock(int(file.Fd()), unix.LOCK_EX))
	s.apply(walkThrough)
	done := make(chan error, 1)
	go func() { done <- s.trySync() }()
	select {
	case err := <-done:
		require.Fail(t, "the sync didn't wait", "%v", err)
	case <-time.After(1500 * time.Millisecond):
	}
	require.NoError(t, unix.Flock(int(file.Fd()), unix.LOCK_UN))
	require.NoError(t, <-done)
	s.requireWalkThrough()
}

// What other programs make with nft, in a table of their own or in a chain of their
// own in iptables' table, is neither read nor touched.
func showNativeChains(s *scene) {
	s.apply(walkThrough)
	s.sync()
	for _, table := range []string{"foreign", "filter", "mangle"} {
		s.addNativeRule(table, "native")
		for range 3 {
			s.enforcer.distrust()
			s.sync()
		}
		s.requireWalkThrough()
	}
}

// Where they add to iptables' own chains, iptables can't print the table. In another
// table than Moat's that doesn't matter; in Moat's it says so and repairs its own chains
// without reading theirs. The legacy backend doesn't see nft.
func showNativeRuleInForward(s *scene) {
	s.apply(walkThrough)
	s.sync()
	for _, table := range []string{"filter", "mangle"} {
		s.run("iptables-nft", "-t", table, "-A", "FORWARD", "-j", "ACCEPT") // makes the chain, with the legacy backend too
	}
	s.addNativeRule("filter", "FORWARD")
	s.enforcer.distrust()
	s.sync()
	s.addNativeRule("mangle", "FORWARD")
	s.enforcer.distrust()
	s.sync()
	if s.enforcer.requested == iptables.NFT {
		require.ErrorIs(s.t, s.enforcer.unread, iptables.ErrIncompatible)
	} else {
		require.Empty(s.t, s.enforcer.unread)
	}
	s.damage("iptables -F MOAT-INGRESS")
	s.inspect()
	s.sync()
	s.requireFates([]string{"neighbour -> test-np tcp/80"}, []string{"neighbour -> test-np ping"})
}

// Numbers of linux/netfilter/nf_tables.h.
const (
	nftNewTable = 0
	nftNewChain = 3
	nftNewRule  = 6

	nftTableName = 1

	nftChainTable = 1
	nftChainName  = 3
	nftChainHook  = 4
	nftChainType  = 7

	nftRuleTable       = 1
	nftRuleChain       = 2
	nftRuleExpressions = 4

	nftListElement    = 1
	nftExpressionName = 1

	nftHookNumber   = 1
	nftHookPriority = 2
)

// addNativeRule adds a rule to an IPv4 table that iptables has no words for and that
// does nothing to forwarded packets. A chain that isn't iptables' is made.
func (s *scene) addNativeRule(table, chain string) {
	s.t.Helper()
	text := func(kind int, value string) *nl.RtAttr { return nl.NewRtAttr(kind, nl.ZeroTerminated(value)) }
	hook := nl.NewRtAttr(nftChainHook|unix.NLA_F_NESTED, nil)
	hook.AddRtAttr(nftHookNumber, binary.BigEndian.AppendUint32(nil, unix.NF_INET_FORWARD))
	hook.AddRtAttr(nftHookPriority, binary.BigEndian.AppendUint32(nil, 77))
	expressions := nl.NewRtAttr(nftRuleExpressions|unix.NLA_F_NESTED, nil)
	expressions.AddRtAttr(nftListElement|unix.NLA_F_NESTED, nil).AddRtAttr(nftExpressionName, nl.ZeroTerminated("notrack"))

	const nft = unix.NFNL_SUBSYS_NFTABLES << 8
	batch := [][]byte{nftMessage(unix.NFNL_MSG_BATCH_BEGIN, unix.NFNL_SUBSYS_NFTABLES)}
	if chain != "FORWARD" {
		batch = append(batch, nftMessage(nft|nftNewTable, 0, text(nftTableName, table)),
			nftMessage(nft|nftNewChain, 0, text(nftChainTable, table), text(nftChainName, chain), hook, text(nftChainType, "filter")))
	}
	batch = append(batch, nftMessage(nft|nftNewRule, 0, text(nftRuleTable, table), text(nftRuleChain, chain), expressions),
		nftMessage(unix.NFNL_MSG_BATCH_END, unix.NFNL_SUBSYS_NFTABLES))
	require.NoError(s.t, s.node.Do(func() error { return sendBatch(batch) }))
}

// nftMessage is one message of a batch (linux/netfilter/nfnetlink.h).
func nftMessage(kind int, resource uint16, attributes ...nl.NetlinkRequestData) []byte {
	flags := unix.NLM_F_CREATE
	if len(attributes) > 0 {
		flags |= unix.NLM_F_ACK
	}
	request := nl.NewNetlinkRequest(kind, flags)
	request.AddRawData(append([]byte{unix.AF_INET, unix.NFNETLINK_V0}, binary.BigEndian.AppendUint16(nil, resource)...))
	message := request.Serialize()
	for _, attribute := range attributes {
		message = append(message, attribute.Serialize()...)
	}
	binary.NativeEndian.PutUint32(message, uint32(len(message)))
	return message
}

// sendBatch sends messages as one transaction and returns the first error.
func sendBatch(batch [][]byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var all []byte
	for _, message := range batch {
		all = append(all, message...)
	}
	if err := unix.Sendto(fd, all, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buffer := make([]byte, 8192)
	for range batch[1 : len(batch)-1] { // the ends of a batch aren't acknowledged
		if _, _, err := unix.Recvfrom(fd, buffer, 0); err != nil {
			return err
		}
		if code := int32(binary.NativeEndian.Uint32(buffer[unix.NLMSG_HDRLEN:])); code != 0 {
			return unix.Errno(-code)
		}
	}
	return nil
}
