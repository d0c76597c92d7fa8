package iptables_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
)

// observed is a network namespace with an observer.
type observed struct {
	t        *testing.T
	host     *nodetest.Node
	observer *iptables.Observer
	last     iptables.Fingerprint
}

func newObserved(t *testing.T) *observed {
	t.Helper()
	nodetest.RequireKernel(t)
	o := &observed{t: t, host: nodetest.NewNode(t)}
	require.NoError(t, o.host.Do(func() (err error) {
		o.observer, err = iptables.OpenObserver()
		return err
	}))
	t.Cleanup(o.observer.Close)
	return o
}

func (o *observed) run(command string) {
	o.t.Helper()
	words := strings.Fields(command)
	require.NoError(o.t, o.host.Do(func() error {
		cmd := exec.Command(words[0], words[1:]...)
		cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(o.t.TempDir(), "xtables.lock"))
		output, err := cmd.CombinedOutput()
		require.NoError(o.t, err, "%s: %s", command, output)
		return nil
	}))
}

// changed takes the next fingerprint and reports whether it differs from the last.
func (o *observed) changed() bool {
	o.t.Helper()
	var now iptables.Fingerprint
	require.NoError(o.t, o.host.Do(func() (err error) {
		now, err = o.observer.Fingerprint(o.last)
		return err
	}))
	same := now.Same(o.last)
	o.last = now
	return !same
}

func (o *observed) chains() (chains []iptables.Chain) {
	o.t.Helper()
	require.NoError(o.t, o.host.Do(func() (err error) {
		chains, err = o.observer.Chains()
		return err
	}))
	return chains
}

// Everything that changes what a mangle table does changes the fingerprint, and
// nothing else does.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			o := newObserved(t)
			require.True(t, o.changed(), "the first is like no other")
			require.False(t, o.changed(), "nothing happened")
			mangle := command + " -t mangle "
			for _, step := range []struct {
				do      string
				differs bool
			}{
				{mangle + "-N A", true},
				{mangle + "-N B", true},
				{mangle + "-A A -p tcp --dport 80 -j RETURN", true},
				{mangle + "-A A -p tcp --dport 81 -j RETURN", true},
				{mangle + "-A FORWARD -j A", true},
				{mangle + "-A INPUT -m conntrack --ctstate NEW -j B", true},
				{"ipset create a hash:ip family " + map[bool]string{true: "inet6", false: "inet"}[strings.HasPrefix(command, "ip6")], false},
				{mangle + "-A B -m set --match-set a src -j DROP", true},
				{mangle + "-R A 2 -p tcp --dport 82 -j RETURN", true},
				{mangle + "-I A 3 -p tcp --dport 80 -j RETURN", true},
				{mangle + "-D A 1", true}, // the same rules in another order
				{mangle + "-I FORWARD 1 -j ACCEPT", true},
				{mangle + "-D FORWARD 1", true},
				{mangle + "-A FORWARD -j A", true},
				{mangle + "-D FORWARD -j A", true},
				{mangle + "-Z", false}, // counters are set to zero
				{command + " -N ELSEWHERE", false},
				{command + " -A FORWARD -j ELSEWHERE", false},
				{mangle + "-P FORWARD DROP", true},
				{mangle + "-F A", true},
				{mangle + "-F", true},
				{mangle + "-X", true},
			} {
				o.run(step.do)
				require.Equal(t, step.differs, o.changed(), step.do)
				require.False(t, o.changed(), "after %s", step.do)
			}
		})
	}
}

// Packets that are counted change no fingerprint.
func TestFingerprintLeavesCountersOut(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"iptables-nft", "iptables-legacy"} {
		o := newObserved(t)
		o.run(command + " -t mangle -A OUTPUT -p icmp -j RETURN")
		require.True(t, o.changed())
		require.True(t, o.host.Ping(nodetest.NodeAddr4, 3e9))
		// After a change of another table, nft's rules are read again.
		o.run("iptables-nft -N ELSEWHERE")
		require.False(t, o.changed(), command)
	}
}

// A table that is deleted with nft is gone.
func TestFingerprintOfADeletedTable(t *testing.T) {
	t.Parallel()
	o := newObserved(t)
	require.True(t, o.changed())
	empty := o.last
	o.run("iptables-nft -t mangle -A FORWARD -j ACCEPT")
	require.True(t, o.changed())
	o.run("nft delete table ip mangle")
	require.True(t, o.changed())
	require.True(t, o.last.Same(empty))
	require.False(t, iptables.Fingerprint{}.Same(iptables.Fingerprint{}), "of nothing nothing is known")
}

// The observer makes no legacy table: every later run of iptables-nft would warn of it.
func TestTheObserverMakesNoTable(t *testing.T) {
	t.Parallel()
	o := newObserved(t)
	require.True(t, o.changed())
	require.Empty(t, o.chains())
	require.NoError(t, o.host.Do(func() error {
		for _, file := range []string{"ip_tables_names", "ip6_tables_names"} {
			names, err := os.ReadFile("/proc/thread-self/net/" + file)
			require.NoError(t, err)
			require.Empty(t, string(names))
		}
		return nil
	}))
}

func TestChainsOfAllTables(t *testing.T) {
	t.Parallel()
	o := newObserved(t)
	o.run("iptables-nft -N NFT4")
	o.run("ip6tables-nft -t nat -N NFT6")
	o.run("iptables-legacy -N LEGACY4")
	o.run("iptables-legacy -A LEGACY4 -p tcp --dport 80 -j RETURN")
	o.run("ip6tables-legacy -t raw -N LEGACY6")
	o.run("nft add table inet native")
	o.run("nft add chain inet native here")
	require.ElementsMatch(t, []iptables.Chain{
		{Backend: iptables.NFT, Family: "IPv4", Table: "filter", Name: "NFT4"},
		{Backend: iptables.NFT, Family: "IPv6", Table: "nat", Name: "NFT6"},
		{Backend: iptables.Legacy, Family: "IPv4", Table: "filter", Name: "LEGACY4"},
		{Backend: iptables.Legacy, Family: "IPv6", Table: "raw", Name: "LEGACY6"},
		{Backend: iptables.NFT, Family: "inet", Table: "native", Name: "here"},
	}, o.chains())
}
