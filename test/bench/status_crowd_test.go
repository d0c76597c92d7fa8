package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/util/flowcontrol"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/test/bench/results"
)

// crowd are AppIsolations of one namespace that write themselves all the time.
type crowd struct {
	common  int // of some 10 KB
	largest int // of as many rules, peers and exceptions as the API takes
}

var crowds = map[string]crowd{
	small:         {common: 1000, largest: 20},
	results.Fleet: {common: 10000, largest: 500},
}

const (
	crowdNamespace = "crowd"

	// rewritesPerSecond bounds what the crowd writes once it is there. While it comes, it
	// writes as fast as crowdWriters can.
	rewritesPerSecond = 50
	crowdWriters      = 4

	commonPeers = 250 // make some 10 KB
)

// The bounds of the API (apis/v1alpha1).
const (
	mostRules  = 32
	mostPeers  = 64
	mostExcept = 32
)

// member returns the i-th of the crowd, of which the last ones are the largest.
func (c crowd) member(i int) *v1alpha1.AppIsolation {
	app := &v1alpha1.AppIsolation{
		ObjectMeta: metav1.ObjectMeta{Namespace: crowdNamespace, Name: fmt.Sprintf("member-%d", i)},
		Spec:       v1alpha1.AppIsolationSpec{Selector: &v1alpha1.LabelSelector{}, Directions: []v1alpha1.Direction{v1alpha1.DirectionIngress}},
	}
	if i < c.common {
		for rule := range (commonPeers + mostPeers - 1) / mostPeers {
			app.Spec.Ingress = append(app.Spec.Ingress, crowdRule(rule, min(mostPeers, commonPeers-rule*mostPeers), 0))
		}
		return app
	}
	for rule := range mostRules {
		app.Spec.Ingress = append(app.Spec.Ingress, crowdRule(rule, mostPeers, mostExcept))
	}
	return app
}

// crowdRule has blocks as peers, each with exceptions.
func crowdRule(number, peers, except int) v1alpha1.IngressRule {
	rule := v1alpha1.IngressRule{Name: fmt.Sprintf("r%d", number), Ports: []v1alpha1.Port{{Port: new(intstr.FromInt32(tcpPort))}}}
	for i := range peers {
		block := &v1alpha1.CIDRPeer{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(10 + number), byte(i), 0, 0}), 16).String()}
		for j := range except {
			block.Except = append(block.Except, netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(10 + number), byte(i), byte(j), 0}), 24).String())
		}
		rule.From = append(rule.From, v1alpha1.Peer{CIDR: block})
	}
	return rule
}

// gather makes the crowd come, and then write itself again and again, until the context ends.
func (f *fleet) gather(ctx context.Context, c crowd, written *atomic.Int64) error {
	order := c.order()
	limit := flowcontrol.NewTokenBucketRateLimiter(rewritesPerSecond, 1)
	return f.writeAll(ctx, written, func(n int) error { return f.writeMember(ctx, c, order, n, limit) })
}

// rehearse has the API server take the same members, and store none: what that costs others is
// the API server's and the machine's part of what a crowd costs.
func (f *fleet) rehearse(ctx context.Context, c crowd, written *atomic.Int64) error {
	order := c.order()
	return f.writeAll(ctx, written, func(n int) error {
		return f.cluster.Client.Create(ctx, c.member(order[n%len(order)]), client.DryRunAll)
	})
}

// writeAll has the crowd's writers make one write after the other until the context ends.
func (f *fleet) writeAll(ctx context.Context, written *atomic.Int64, write func(n int) error) error {
	err := f.cluster.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: crowdNamespace}})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	next := atomic.Int64{}
	var group sync.WaitGroup
	var failed atomic.Pointer[error]
	for range crowdWriters {
		group.Go(func() {
			for ctx.Err() == nil && failed.Load() == nil {
				err := write(int(next.Add(1)) - 1)
				switch {
				case err == nil:
					written.Add(1)
				case ctx.Err() == nil && !isOverload(err):
					failed.Store(&err)
				}
			}
		})
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// isOverload reports whether the API server had no time for a write, or lacks what such a
// write should have made.
func isOverload(err error) bool {
	return apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err)
}

// writeMember makes the n-th write of the crowd: first each member is made, then changed.
func (f *fleet) writeMember(ctx context.Context, c crowd, order []int, n int, limit flowcontrol.RateLimiter) error {
	if n < len(order) {
		return f.cluster.Client.Create(ctx, c.member(order[n]))
	}
	if err := limit.Wait(ctx); err != nil {
		return err
	}
	patch := fmt.Appendf(nil, `{"spec":{"selector":{"matchLabels":{"turn":"%d"}}}}`, n/len(order))
	return f.cluster.Client.Patch(ctx, c.member(n%len(order)), client.RawPatch(types.MergePatchType, patch))
}

// order returns the crowd's numbers, the largest spread among the others, the same in each run.
func (c crowd) order() []int { return rand.New(rand.NewPCG(5, 6)).Perm(c.common + c.largest) }

// measureCrowd measures what the same changes as before take while one namespace is crowded,
// and while the API server is as busy with the same members and stores none. Quiet is what they
// took without.
func (f *fleet) measureCrowd(t testing.TB, c crowd, changed []subject, rest time.Duration, quiet results.Figure) []results.Figure {
	t.Helper()
	rehearsed, _ := f.changesBeside(t, c, f.rehearse, "a rehearsal of the crowd", changed, rest)
	took, written := f.changesBeside(t, c, f.gather, "a crowd", changed, rest)
	alone, figure := results.Milliseconds(results.StatusRehearsal, rehearsed), results.Milliseconds(results.StatusCrowd, took)
	return []results.Figure{
		figure,
		results.Number(results.StatusCrowdTimes, figure.Value/quiet.Value),
		alone,
		results.Number(results.StatusRehearsalTimes, alone.Value/quiet.Value),
		results.Number(results.StatusCrowdWrites, float64(written)),
		results.Number(results.StatusCrowdPeak, processMemory(t, f.operator.Pid(), "VmHWM")),
	}
}

// changesBeside makes changes while others write, and returns how long each took until it was
// Enforced, and how often the others wrote.
func (f *fleet) changesBeside(
	t testing.TB, c crowd, write func(context.Context, crowd, *atomic.Int64) error, what string, changed []subject, rest time.Duration,
) (took []time.Duration, writes int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var written atomic.Int64
	ended := make(chan error, 1)
	go func() { ended <- write(ctx, c, &written) }()
	for i, s := range changed {
		time.Sleep(rest)
		say("change %d of %d beside %s that wrote %d times: %s", i+1, len(changed), what, written.Load(), s.proofKey())
		start := time.Now()
		generation := f.change(t, s)
		took = append(took, f.await(t, s, generation).Sub(start))
	}
	cancel()
	require.NoError(t, <-ended, "the crowd couldn't write")
	return took, written.Load()
}
