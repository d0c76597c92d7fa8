package policy_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/dataplane/policy"
)

// unreadablePeers returns a policy with so many peers whose selectors can't be read. Each
// has the value as a label's.
func unreadablePeers(n int, value string) *networkingv1.NetworkPolicy {
	peer := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": value}}}
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "odd"}}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: make([]networkingv1.NetworkPolicyPeer, n)}}
	for i := range n {
		np.Spec.Ingress[0].From[i] = peer
	}
	return np
}

// Every agent keeps every policy of the cluster, and 85,000 selectors that can't be read fit
// into one (1.7 MB). Their errors took 27 MB of each agent.
func TestErrorsOfUnreadablePartsAreBounded(t *testing.T) {
	const kept, copies = 16 << 10, 10 // what else the process keeps or frees is small beside ten
	for name, row := range map[string]struct {
		parts int
		value string
	}{"many": {85000, "-"}, "long": {500, strings.Repeat("€", 1<<10)}} {
		t.Run(name, func(t *testing.T) {
			np := unreadablePeers(row.parts, row.value)
			var parsed [copies]*policy.Policy
			before := heapBytes()
			for i := range parsed {
				parsed[i] = policy.ParseNetworkPolicy(np)
			}
			took := (heapBytes() - before) / copies
			p := parsed[0]
			t.Logf("%d bytes are kept of %d unreadable selectors", took, row.parts)
			require.Less(t, took, int64(kept))
			require.Len(t, p.Unreadable, 9)
			require.ErrorContains(t, p.Unreadable[0], "spec.ingress[0].from[0]: podSelector: ")
			require.ErrorContains(t, p.Unreadable[7], "spec.ingress[0].from[7]: podSelector: ")
			require.EqualError(t, p.Unreadable[8], fmt.Sprintf("parts of the policy beyond these that can't be read: %d", row.parts-8))
			for _, err := range p.Unreadable {
				require.LessOrEqual(t, len(err.Error()), 256)
				require.True(t, utf8.ValidString(err.Error()))
			}
			runtime.KeepAlive(np)
			runtime.KeepAlive(parsed)
		})
	}
}

// What follows 1,000 parts that can't be read isn't read: it allows nothing.
func TestAPolicyThatCantBeReadIsntReadToItsEnd(t *testing.T) {
	for unreadable, peers := range map[int]int{999: 1, 1000: 0} {
		np := unreadablePeers(unreadable, "-")
		from := &np.Spec.Ingress[0].From
		*from = append(*from, networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}})
		np.Spec.Ingress[0].Ports = []networkingv1.NetworkPolicyPort{{}}
		rule := policy.ParseNetworkPolicy(np).Rules[policy.Ingress][0]
		require.Len(t, rule.Peers, peers)
		require.Len(t, rule.Ports, peers)
		require.False(t, rule.AnyPeer || rule.AnyPort)
	}
}

func TestUpToEightUnreadablePartsAreNamed(t *testing.T) {
	require.Len(t, policy.ParseNetworkPolicy(unreadablePeers(8, "-")).Unreadable, 8)
	nine := policy.ParseNetworkPolicy(unreadablePeers(9, "-")).Unreadable
	require.Len(t, nine, 9)
	require.EqualError(t, nine[8], "parts of the policy beyond these that can't be read: 1")
}

// heapBytes is what the process keeps. A pool, as regular expressions have, is empty after
// two collections.
func heapBytes() int64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
