package dataplane

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/node/modeltest"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
)

// flow is new connections from one host to another, one after the other. Its
// probes are pings, of which each is a connection of its own.
type flow struct {
	from, to *nodetest.Host
	passes   bool
}

// whileFlowing sends the flows' probes while do runs and requires that none has
// another fate than its flow's.
func whileFlowing(t *testing.T, flows []flow, do func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wait sync.WaitGroup
	var mu sync.Mutex
	var wrong []string
	sent := make([]int, len(flows))
	for i, f := range flows {
		for _, addr := range f.to.Addrs {
			if !f.from.Addr(addr).IsValid() {
				continue
			}
			wait.Go(func() {
				for ctx.Err() == nil {
					passed := f.from.Ping(addr, patience(f.passes))
					mu.Lock()
					sent[i]++
					if passed != f.passes && len(wrong) < 10 {
						wrong = append(wrong, fmt.Sprintf("%s -> %s: passed=%t", f.from.Addrs, addr, passed))
					}
					mu.Unlock()
				}
			})
		}
	}
	// Each flow is seen before and after as well.
	seen := func(more int) func() bool {
		mu.Lock()
		defer mu.Unlock()
		least := make([]int, len(sent))
		for i := range sent {
			least[i] = sent[i] + more
		}
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			for i := range sent {
				if sent[i] < least[i] {
					return false
				}
			}
			return true
		}
	}
	require.Eventually(t, seen(3), 10*time.Second, time.Millisecond)
	do()
	require.Eventually(t, seen(3), 10*time.Second, time.Millisecond)
	cancel()
	wait.Wait()
	require.Empty(t, wrong)
	t.Logf("probes of each flow: %v", sent)
}

// crowd adds pods of other nodes that nobody talks to.
func (s *scene) crowd(labels map[string]string, from, to int) {
	for i := from; i < to; i++ {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("crowd-%d", i), Labels: labels}}
		pod.Spec.NodeName = "elsewhere"
		pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 80}}}}
		pod.Status.PodIPs = []corev1.PodIP{
			{IP: fmt.Sprintf("10.%d.%d.%d", 100+i>>16, i>>8&255, i&255)},
			{IP: fmt.Sprintf("fd00:10:%x::%x", 0x6400+i>>16, 1+i&0xffff)},
		}
		modeltest.See(s.model, pod)
	}
}

const admitsFrontends = `
metadata: {name: admits}
spec:
  podSelector: {matchLabels: {role: db}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {role: frontend}}}]}]
  egress: [{to: [{podSelector: {matchLabels: {role: frontend}}}], ports: [{port: web}]}]
`

// growingScene has sets that hold eight elements before they have to grow.
func growingScene(t *testing.T, backend iptables.Backend) (*scene, []flow) {
	t.Helper()
	s := walkThroughScene(t, backend)
	s.label("test-np", map[string]string{"role": "db"})
	s.label("busybox", map[string]string{"role": "frontend"})
	require.NoError(t, s.node.Do(func() error { return s.enforcer.openSets() }))
	s.enforcer.sets.Capacity = 8
	s.apply(admitsFrontends)
	s.sync()
	flows := []flow{
		{s.hosts["busybox"], s.hosts["test-np"], true},
		{s.hosts["neighbour"], s.hosts["test-np"], false},
		{s.hosts["project"], s.hosts["test-np"], false},
	}
	return s, flows
}

// A set that becomes full is made larger while packets look it up, when its pods
// come one by one and when they come all at once: whom it admits is admitted at
// every moment, and whom it doesn't isn't at any.
func TestASetGrowsWithoutAGap(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s, flows := growingScene(t, backend)
		whileFlowing(t, flows, func() {
			for i := range 300 {
				s.crowd(map[string]string{"role": "frontend"}, i, i+1)
				s.sync()
			}
			for size := 300; size < 5000; size *= 2 {
				s.crowd(map[string]string{"role": "frontend"}, size, 2*size)
				s.enforcer.trusted = size%400 != 0
				s.sync()
			}
		})
		s.enforcer.distrust()
		s.sync()
		require.NotRegexp(t, `create moat-\S+-[0-9a-f]{4} `, s.run("ipset", "save"), "no set of the way is left")
		s.requirePing(false, "neighbour", "test-np")
		s.requireTCP(true, "test-np", "busybox", 80)
		s.requireTCP(false, "test-np", "busybox", 81)
	})
}

// The set of the node's isolated pods grows too: for a moment without it every one
// of them would be open.
func TestTheIsolatedSetGrowsWithoutAGap(t *testing.T) {
	s, flows := growingScene(t, iptables.NFT)
	whileFlowing(t, flows, func() {
		for i := range 200 {
			pod := policytest.PodObject(fmt.Sprintf("local-%d", i), thisNode, fmt.Sprintf("10.244.1.%d", 20+i))
			pod.Namespace, pod.Labels = "default", map[string]string{"role": "db"}
			modeltest.See(s.model, pod)
			s.sync()
		}
	})
}

// A policy whose peers are 100,000 pods with two addresses each is in force, and
// one more of them costs little. The test says how long it took.
func TestAPolicyOf100000Peers(t *testing.T) {
	s, flows := growingScene(t, iptables.NFT)
	s.crowd(map[string]string{"role": "frontend"}, 0, 100_000)
	measure := func(what string, do func()) {
		start := time.Now()
		do()
		t.Logf("%s: %v", what, time.Since(start))
	}
	whileFlowing(t, flows, func() { measure("first fill", s.sync) })
	measure("nothing to do", s.sync)
	s.label("neighbour", map[string]string{"role": "frontend"})
	measure("one pod more", s.sync)
	s.requirePing(true, "neighbour", "test-np")
	s.label("neighbour", nil)
	measure("one pod less", s.sync)
	s.requirePing(false, "neighbour", "test-np")
	s.enforcer.distrust()
	measure("reading the kernel back", s.sync)
	s.requirePing(true, "busybox", "test-np")
}
