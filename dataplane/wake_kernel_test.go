package dataplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/kernel/nfnetlink"
	"github.com/moat-dev/moat/dataplane/kernel/nlattr"
	"github.com/moat-dev/moat/dataplane/metrics"
	"github.com/moat-dev/moat/dataplane/metrics/metricstest"
)

// wakingAgent syncs when the kernel tells of changes, as the agent does, but never by
// itself. It says when it ended a sync that repaired something.
func (s *scene) wakingAgent() (repaired <-chan time.Time, stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	ended, ends := make(chan time.Time, 16), make(chan error, 1)
	go func() {
		ends <- s.node.Do(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case told := <-s.enforcer.waker.woken:
					if !s.enforcer.glance(told) {
						continue
					}
				}
				for err := s.enforcer.sync(ctx, s.model); err != nil && ctx.Err() == nil; err = s.enforcer.sync(ctx, s.model) {
					s.t.Logf("the damage isn't over yet: %v", err)
				}
				if what, _ := s.enforcer.repaired(time.Now()); what != nil {
					ended <- time.Now()
				}
			}
		})
	}()
	return ended, func() {
		cancel()
		require.NoError(s.t, <-ends)
	}
}

// Where the kernel tells of damage, or where its size does with legacy, the repair waits
// for no inspection. What was written by Moat itself is no reason to look.
func TestDamageWakesTheAgent(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.label("test-np", map[string]string{"role": "db"})
		s.apply(walkThrough)
		s.sync()
		s.comeToRest()
		s.enforcer.repaired(time.Now())
		repaired, stop := s.wakingAgent()
		defer stop()
		healthy := withoutCounters(s.dump())
		var took []time.Duration
		for range 7 {
			start := time.Now()
			s.flushEverything()
			select {
			case at := <-repaired:
				took = append(took, at.Sub(start))
			case <-time.After(20 * time.Second):
				require.FailNow(t, "not repaired", s.dump())
			}
			s.awaitDump(healthy, repaired)
		}
		slices.Sort(took)
		t.Logf("repaired after %v at the median, all: %v", took[len(took)/2], took)
		require.GreaterOrEqual(t, metricstest.Scrape(t, s.enforcer.metrics)["repair_gap_seconds"], 7.0)
	})
}

// awaitDump waits until the kernel holds what it held: a flush may be repaired in the
// middle, and once more at its end.
func (s *scene) awaitDump(want string, repaired <-chan time.Time) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return withoutCounters(s.dump()) == want }, 20*time.Second, 20*time.Millisecond)
	for len(repaired) > 0 {
		<-repaired
	}
}

// What Moat writes, and what others write elsewhere, makes nobody read the tables.
func TestOtherWritesAreGlancedAtOnly(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	s.sync()
	s.comeToRest()
	reads := func(kind string) float64 {
		return metricstest.Scrape(t, s.enforcer.metrics)["kernel_reads_total "+kind]
	}
	full := reads(metrics.ReadFull)
	_, stop := s.wakingAgent()
	for range 20 {
		s.run("iptables-nft", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "80", "-j", "RETURN")
	}
	require.Eventually(t, func() bool { return len(s.enforcer.waker.woken) == 0 }, 10*time.Second, time.Millisecond)
	stop()
	require.Positive(t, reads(metrics.ReadGlance))
	require.Equal(t, full, reads(metrics.ReadFull))

	s.apply(strings.Replace(walkThrough, "port: 80", "port: 81", 1))
	s.sync() // writes rules
	require.Eventually(t, func() bool { return len(s.enforcer.waker.woken) == 1 }, 10*time.Second, time.Millisecond, "the kernel tells of it")
	require.NoError(t, s.node.Do(func() error {
		require.False(t, s.enforcer.glance(<-s.enforcer.waker.woken), "and it is no damage")
		return nil
	}))
	require.Equal(t, full, reads(metrics.ReadFull))
}

// Who writes all the time, so that no table can be read in one piece, is no damage, and
// hides none for longer than until the next inspection.
func TestATableThatChangesAllTheTimeIsNoDamage(t *testing.T) {
	s := newScene(t, iptables.NFT)
	s.namespace("default", nil)
	largeNode(s, 20, 5)
	s.sync()
	s.comeToRest()
	written := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	var writes atomic.Int64
	go func() { written <- s.node.Do(func() error { return writeAllTheTime(ctx, &writes) }) }()
	defer func() {
		stop()
		require.NoError(t, <-written)
	}()
	interrupted := func() bool {
		_, err := s.enforcer.inspection.observer.Rules(iptables.Rules{})
		return errors.Is(err, nfnetlink.ErrChanging)
	}
	require.NoError(t, s.node.Do(func() error {
		seen := 0
		for start := time.Now(); seen < 5 && time.Since(start) < 30*time.Second; {
			if interrupted() {
				seen++
			}
			require.False(t, s.enforcer.glance(time.Now()), "after %d writes", writes.Load())
		}
		require.Equal(t, 5, seen, "the reading was never interrupted")
		s.run("iptables-nft", "-t", "mangle", "-F")
		require.Eventually(t, func() bool { return s.enforcer.glance(time.Now()) || inspected(s.enforcer) }, 5*time.Second, time.Millisecond)
		return nil
	}))
}

// inspected makes an inspection and reports whether it asks for a full read.
func inspected(e *enforcer) bool {
	e.inspect()
	return !e.trusted
}

// writeAllTheTime makes and deletes a table of its own until the context ends, in the
// network namespace of the calling thread.
func writeAllTheTime(ctx context.Context, writes *atomic.Int64) error {
	socket, err := nfnetlink.Open(nfnetlink.Short)
	if err != nil {
		return err
	}
	defer socket.Close()
	var name []byte
	nlattr.Append(&name, unix.NFTA_TABLE_NAME, []byte("busy\x00")...)
	for ctx.Err() == nil {
		for _, command := range []int{unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE} {
			change := nfnetlink.Request{Command: command, Family: unix.NFPROTO_IPV4, Attributes: name, New: command == unix.NFT_MSG_NEWTABLE}
			if err := socket.Transact(unix.NFNL_SUBSYS_NFTABLES, []nfnetlink.Request{change}); err != nil {
				return err
			}
			writes.Add(1)
		}
	}
	return nil
}

// kube-proxy writes the rules of all Services again and again: 500, or 5,000 with
// MOAT_MEASURE=1. What an agent on the node takes for looking at each transaction, or at as many as
// the pause lets it, is less than one per cent of a core.
func TestGlancesAreCheap(t *testing.T) {
	s := newScene(t, iptables.NFT)
	s.namespace("default", nil)
	largeNode(s, 20, 5)
	s.sync()
	s.comeToRest()
	services := servicesOfKubeProxy(500)
	if os.Getenv("MOAT_MEASURE") != "" {
		services = servicesOfKubeProxy(5000)
	}
	write := func() {
		require.NoError(t, s.node.Do(func() error { return restoreAll(t, services, "iptables-nft-restore", "--noflush") }))
	}
	write()
	var glances atomic.Int64
	var spent time.Duration
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- s.node.Do(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case told := <-s.enforcer.waker.woken:
					start := threadTime()
					if s.enforcer.glance(told) {
						return context.DeadlineExceeded // takes it for damage
					}
					spent += threadTime() - start
					glances.Add(1)
				}
			}
		})
	}()
	start := time.Now()
	for time.Since(start) < 5*time.Second || glances.Load() < 3 {
		write()
	}
	cancel()
	require.NoError(t, <-done)
	share := 100 * spent.Seconds() / time.Since(start).Seconds()
	t.Logf("%d glances of %s each, %.3f %% of a core", glances.Load(), spent/time.Duration(glances.Load()), share)
	require.Less(t, share, 1.0)
}

// servicesOfKubeProxy is what kube-proxy restores for Services with one endpoint each.
func servicesOfKubeProxy(n int) string {
	var chains, rules strings.Builder
	for i := range n {
		service, endpoint := fmt.Sprintf("KUBE-SVC-%016d", i), fmt.Sprintf("KUBE-SEP-%016d", i)
		ip, pod := fmt.Sprintf("10.%d.%d.%d", 100+i>>16, i>>8&255, i&255), fmt.Sprintf("10.%d.%d.%d", 200+i>>16, i>>8&255, i&255)
		fmt.Fprintf(&chains, ":%s - [0:0]\n:%s - [0:0]\n", service, endpoint)
		fmt.Fprintf(&rules, "-A KUBE-SERVICES -d %s/32 -p tcp -m comment --comment \"default/service-%d cluster IP\" -m tcp --dport 80 -j %s\n", ip, i, service)
		fmt.Fprintf(&rules, "-A %s -m comment --comment \"default/service-%d -> %s:8080\" -j %s\n", service, i, pod, endpoint)
		fmt.Fprintf(&rules, "-A %s -s %s/32 -m comment --comment default/service-%d -j MARK --set-xmark 0x4000/0x4000\n", endpoint, pod, i)
		fmt.Fprintf(&rules, "-A %s -p tcp -m comment --comment default/service-%d -m tcp -j DNAT --to-destination %s:8080\n", endpoint, i, pod)
	}
	return "*nat\n:KUBE-SERVICES - [0:0]\n" + chains.String() + rules.String() + "COMMIT\n"
}

// threadTime is the processor time of the calling thread, which has to be locked.
func threadTime() time.Duration {
	var usage unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
