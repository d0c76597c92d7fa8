package cluster_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/ruleset"
	"github.com/moat-dev/moat/test/cluster"
)

// The agents' rules are what closes a pod, and nothing else: they go and come back
// with them.
func TestPoliciesAreInForceWhereTheAgentsSayIt(t *testing.T) {
	c := cluster.New(t, cluster.Options{Nodes: 2, Primary: ruleset.IPv6})
	client1 := c.AddPod(t, c.Nodes[0], pod("client"))
	server := c.AddPod(t, c.Nodes[1], pod("server"))
	open := func() bool {
		reached := client1.TCP(server.Addrs[0], 80, time.Second)
		require.Equal(t, reached, client1.TCP(server.Addrs[1], 80, time.Second))
		return reached
	}
	require.True(t, open())

	c.StartAgents(t, iptables.NFT)
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "closed"}}
	require.NoError(t, c.Client.Create(t.Context(), policy))
	c.AwaitEnforced(t, client.ObjectKeyFromObject(policy))
	require.False(t, open())

	c.StopAgents(t)
	require.False(t, open(), "the rules of an agent that stops stay")
	for _, n := range c.Nodes {
		require.Contains(t, n.Rules(t, iptables.NFT), "MOAT-")
		n.RemoveRules(t)
		require.NotContains(t, n.Rules(t, iptables.NFT), "MOAT-")
		require.NotContains(t, n.Rules(t, iptables.NFT), "moat-")
	}
	require.True(t, open())

	c.StartAgents(t, iptables.NFT)
	require.Eventually(t, func() bool { return !open() }, 10*time.Second, 10*time.Millisecond)
	c.DeletePod(t, "default", "client")
	require.Nil(t, c.Pod("default", "client"))
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "web", Image: "none", Ports: []corev1.ContainerPort{{ContainerPort: 80}},
		}}},
	}
}
