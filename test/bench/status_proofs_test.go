package bench

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// proof is the last generation that a status said to be enforced, and since when.
type proof struct {
	generation int64
	at         time.Time

	stands  bool      // whether the status says so now
	changed time.Time // when that changed last
}

// proofs are those of all policies, from a watch of the two kinds of status.
type proofs struct {
	mu      sync.Mutex
	of      map[string]proof
	largest int // status, as JSON
}

func proofKey(kind kindOfPolicy, namespace, name string) string {
	return string(kind) + " " + namespace + "/" + name
}

func (s subject) proofKey() string { return proofKey(s.kind, namespaceName(s.namespace), s.name()) }

func watchProofs(t testing.TB, config *rest.Config) *proofs {
	t.Helper()
	p := &proofs{of: map[string]proof{}}
	held, err := cache.New(config, cache.Options{Scheme: apiservertest.NewScheme(), DefaultTransform: cache.TransformStripManagedFields()})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	for _, object := range []client.Object{&v1alpha1.AppIsolation{}, &v1alpha1.PolicyEnforcement{}} {
		informer, err := held.GetInformer(ctx, object, cache.BlockUntilSynced(false))
		require.NoError(t, err)
		_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { p.see(object) },
			UpdateFunc: func(_, object any) { p.see(object) },
		})
		require.NoError(t, err)
	}
	go func() { _ = held.Start(ctx) }()
	require.True(t, held.WaitForCacheSync(ctx))
	return p
}

func (p *proofs) see(object any) {
	now := time.Now()
	switch object := object.(type) {
	case *v1alpha1.AppIsolation:
		p.take(proofKey(generated, object.Namespace, object.Name), object.Status.Conditions, object.Status, now)
	case *v1alpha1.PolicyEnforcement:
		p.take(proofKey(handWritten, object.Namespace, object.Name), object.Status.Conditions, object.Status, now)
	}
}

func (p *proofs) take(key string, conditions []metav1.Condition, status any, now time.Time) {
	text, _ := json.Marshal(status) // Plain data.
	p.mu.Lock()
	defer p.mu.Unlock()
	p.largest = max(p.largest, len(text))
	enforced := meta.FindStatusCondition(conditions, v1alpha1.ConditionEnforced)
	stands := enforced != nil && enforced.Status == metav1.ConditionTrue && enforced.Reason == v1alpha1.ReasonAllNodesEnforced
	before, known := p.of[key]
	if !known && !stands {
		return
	}
	after := before
	if stands != before.stands {
		after.stands, after.changed = stands, now
	}
	if stands && enforced.ObservedGeneration > before.generation {
		after.generation, after.at = enforced.ObservedGeneration, now
	}
	p.of[key] = after
}

// last returns the last proof of a policy.
func (p *proofs) last(s subject) proof {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of[s.proofKey()]
}

// count returns how many policies have a proof.
func (p *proofs) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.of)
}

func (p *proofs) largestStatus() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.largest
}

func toJSON(t testing.TB, object any) string {
	t.Helper()
	text, err := json.Marshal(object)
	require.NoError(t, err)
	return string(text)
}
