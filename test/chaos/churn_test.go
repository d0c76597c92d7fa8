package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// churn changes policies and labels all the while, so that faults meet agents at
// work. None of its changes alters what may pass between the probed pods.
type churn struct {
	client client.Client
	random *rand.Rand
	count  atomic.Int64 // changes that were made
	failed atomic.Value // the error of the last one that wasn't, as text

	cancel context.CancelFunc
	done   sync.WaitGroup
}

const (
	// churnEvery is the pause between two changes.
	churnEvery = 30 * time.Millisecond
	// churnPolicies is how many policies come and go.
	churnPolicies = 8
	// tint is a label that means nothing but to the policies of the churn.
	tint = "tint"
	// twin is a policy like that of the servers: one of both is always there.
	twin = "server-twin"
)

func newChurn(c client.Client, random *rand.Rand) *churn { return &churn{client: c, random: random} }

// start makes changes until stop.
func (c *churn) start() {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.done.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(churnEvery):
			}
			// The API server may be what fails.
			if err := c.change(ctx); err != nil {
				c.failed.Store(err.Error())
				continue
			}
			c.count.Add(1)
		}
	})
}

// stop ends the changes, which may leave policies.
func (c *churn) stop() {
	if c.cancel != nil {
		c.cancel()
		c.done.Wait()
		c.cancel = nil
	}
}

// change makes one change at random.
func (c *churn) change(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	switch c.random.IntN(5) {
	case 0:
		return c.swapTwins(ctx)
	case 1:
		return touch(ctx, c.client, types.NamespacedName{Namespace: namespace, Name: friend}, c.random.IntN(1000))
	case 2:
		return c.paint(ctx)
	}
	return c.toggle(ctx, extraPolicy(fmt.Sprintf("churn-%d", c.random.IntN(churnPolicies)), c.random.IntN(1000)))
}

// toggle creates a policy, or deletes it where it exists.
func (c *churn) toggle(ctx context.Context, p *networkingv1.NetworkPolicy) error {
	err := c.client.Create(ctx, p)
	if apierrors.IsAlreadyExists(err) {
		return c.client.Delete(ctx, p)
	}
	return err
}

// swapTwins creates the one of two policies of the servers that isn't there, and
// deletes the other one.
func (c *churn) swapTwins(ctx context.Context) error {
	first := policies()[0]
	second := first.DeepCopy()
	second.Name = twin
	for _, pair := range [][2]*networkingv1.NetworkPolicy{{first, second}, {second, first}} {
		err := c.client.Create(ctx, pair[0].DeepCopy())
		if err == nil {
			return c.client.Delete(ctx, pair[1])
		}
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return c.client.Delete(ctx, second) // Both are there: a deletion had failed.
}

// paint labels an open pod, which some policies select as a peer.
func (c *churn) paint(ctx context.Context) error {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: open + "-1"}}
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:"tint-%d"}}}`, tint, c.random.IntN(3))
	return c.client.Patch(ctx, pod, client.RawPatch(types.MergePatchType, patch))
}

// extraPolicy selects servers, or prisoners, and allows them what none of the probes
// is.
func extraPolicy(name string, variant int) *networkingv1.NetworkPolicy {
	peer := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{tint: fmt.Sprintf("tint-%d", variant%3)}}}
	if variant%2 == 0 {
		peer = networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("192.0.%d.0/24", variant%250), Except: []string{fmt.Sprintf("192.0.%d.64/26", variant%250)}}}
	}
	ports := []networkingv1.NetworkPolicyPort{serverPorts()[variant%2]}
	port := intPort(1024 + variant)
	ports[0].Port, ports[0].EndPort = &port, nil
	if variant%5 == 0 {
		p := policy(name, prisoner, networkingv1.PolicyTypeEgress)
		p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{peer}, Ports: ports}}
		return p
	}
	p := policy(name, server, networkingv1.PolicyTypeIngress)
	p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{peer}, Ports: ports}}
	return p
}

// touch changes what a policy says without changing what it means to the probed
// pods: it allows its pods an address that nobody has.
func touch(ctx context.Context, c client.Client, key types.NamespacedName, variant int) error {
	p := &networkingv1.NetworkPolicy{}
	if err := c.Get(ctx, key, p); err != nil {
		return err
	}
	nobody := []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("198.51.100.%d/32", variant%250)}}}
	for _, original := range policies() {
		if original.Name == p.Name {
			p.Spec = original.Spec
		}
	}
	if p.Name == server {
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: nobody})
	} else {
		p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: nobody})
	}
	return c.Update(ctx, p)
}

// touch changes a policy that may have been deleted in favour of its twin.
func (s *suite) touch(key types.NamespacedName) error {
	err := touch(s.ctx, s.Client, key, s.random.IntN(1000))
	if apierrors.IsNotFound(err) && key.Name == server {
		return s.Client.Create(s.ctx, policies()[0])
	}
	return err
}

// whileChanging makes faults of a kind while policies change, and requires that
// they did.
func (s *suite) whileChanging(kind string, do func()) {
	s.t.Helper()
	if !s.size.includes(kind) {
		return
	}
	before := s.churn.count.Load()
	s.churn.start()
	defer s.churn.stop()
	do()
	require.Greater(s.t, s.churn.count.Load(), before, "no policy changed meanwhile")
}

func TestExtraPoliciesAllowNoProbe(t *testing.T) {
	for variant := range 1000 {
		p := extraPolicy("extra", variant)
		require.Contains(t, []string{server, prisoner}, p.Spec.PodSelector.MatchLabels[role])
		for _, rule := range p.Spec.Ingress {
			require.GreaterOrEqual(t, rule.Ports[0].Port.IntVal, int32(1024))
			require.NotNil(t, rule.From[0])
		}
	}
}
