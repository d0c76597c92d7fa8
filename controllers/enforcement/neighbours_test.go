package enforcement

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// namedPolicy returns a policy for role=db.
func namedPolicy(t *testing.T, name, spec string) networkingv1.NetworkPolicy {
	t.Helper()
	policy := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: *policySpec(t, spec)}
	policy.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"role": "db"}}
	return policy
}

func generatedFor(app string) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: v1alpha1.GroupVersion.String(), Kind: "AppIsolation", Name: app, Controller: new(true)}}
}

func TestNeighboursOf(t *testing.T) {
	const closed, open = "{policyTypes: [Ingress]}", "{policyTypes: [Ingress], ingress: [{}]}"
	own := namedPolicy(t, "appiso-db", closed)
	own.OwnerReferences = generatedFor("db")
	widening, harmless, generated, elsewhere := namedPolicy(t, "open", open), namedPolicy(t, "closed", closed), namedPolicy(t, "appiso-all", closed), namedPolicy(t, "elsewhere", open)
	generated.OwnerReferences = generatedFor("all")
	elsewhere.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"role": "web"}}
	unreadable := namedPolicy(t, "unreadable", open)
	unreadable.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"not a key": "x"}}
	pods := []labels.Set{{"role": "db"}}

	n := neighboursOf([]networkingv1.NetworkPolicy{widening, harmless, own, generated, elsewhere, unreadable}, 2, pods)
	require.Equal(t, neighbours{widening: []string{"open"}, apps: []string{"all"}}, n)
	require.Empty(t, neighboursOf([]networkingv1.NetworkPolicy{own, widening}, 0, nil), "no pods are no shared pods")

	foreign := namedPolicy(t, "foreign", closed)
	foreign.OwnerReferences = generatedFor("x")
	foreign.OwnerReferences[0].APIVersion = "example.com/v1"
	require.Empty(t, neighboursOf([]networkingv1.NetworkPolicy{own, foreign}, 0, pods), "another group's AppIsolation")
}

// What a reconciliation costs is bounded: policies beyond 200 that select the same pods
// aren't compared, and count as allowing more.
func TestNeighboursAreComparedUpToABound(t *testing.T) {
	policies := []networkingv1.NetworkPolicy{namedPolicy(t, "own", "{policyTypes: [Ingress]}")}
	for i := range maxCompared + 2 {
		policies = append(policies, namedPolicy(t, fmt.Sprintf("other-%03d", i), "{policyTypes: [Ingress]}"))
	}
	n := neighboursOf(policies, 0, []labels.Set{{"role": "db"}})
	require.Equal(t, []string{"other-200", "other-201"}, n.widening)
}

func TestNeighboursNameTen(t *testing.T) {
	var n neighbours
	for i := range 12 {
		n.widening = append(n.widening, fmt.Sprintf("p%02d", i))
	}
	exclusive := meta.FindStatusCondition(n.conditions(), v1alpha1.ConditionExclusive)
	require.Equal(t, "these policies select some of the same pods and allow more: p00, p01, p02, p03, p04, p05, p06, p07, p08, p09 and 2 more", exclusive.Message)
	n.widening = n.widening[:10]
	exclusive = meta.FindStatusCondition(n.conditions(), v1alpha1.ConditionExclusive)
	require.NotContains(t, exclusive.Message, "more: p09 and")
	require.Contains(t, exclusive.Message, "p08, p09")
}

func TestLabelSetsAreDistinct(t *testing.T) {
	pod := func(set map[string]string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: set}}
	}
	sets := labelSets([]*corev1.Pod{pod(map[string]string{"a": "b"}), pod(nil), pod(map[string]string{"a": "b"}), pod(map[string]string{"a": "c"})})
	require.Equal(t, []labels.Set{{"a": "b"}, nil, {"a": "c"}}, sets)
}

// expectNeighbour waits for a condition of an AppIsolation.
func (c *cluster) expectNeighbour(app, name string, status metav1.ConditionStatus, reason, message string) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		condition := meta.FindStatusCondition(c.appNamed(app).Status.Conditions, name)
		return condition != nil && condition.Status == status && condition.Reason == reason
	}, apiservertest.Eventually, apiservertest.Tick, "%s: %s %s %s", app, name, status, reason)
	require.Contains(c.t, meta.FindStatusCondition(c.appNamed(app).Status.Conditions, name).Message, message)
}

func TestNeighboursComeAndGo(t *testing.T) {
	c := newCluster(t)
	c.createApp()
	c.expectNeighbour("db", "Exclusive", "True", "OnlyPolicy", "no other policy")
	c.expectNeighbour("db", "Overlapping", "False", "NoOverlap", "no other AppIsolation")

	wide := namedPolicy(t, "wide", "{policyTypes: [Ingress], ingress: [{}]}")
	wide.Namespace = c.namespace
	require.NoError(t, c.admin.Create(t.Context(), &wide))
	// Selectors that could meet aren't enough: pods count.
	pod := c.pod("a", c.node("one"))
	c.expectNeighbour("db", "Exclusive", "False", "WidenedByOtherPolicies", "allow more: wide")
	wide.Spec.Ingress = nil
	require.NoError(t, c.admin.Update(t.Context(), &wide))
	c.expectNeighbour("db", "Exclusive", "True", "OnlyPolicy", "")
	wide.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
	require.NoError(t, c.admin.Update(t.Context(), &wide))
	c.expectNeighbour("db", "Exclusive", "False", "WidenedByOtherPolicies", "")
	require.NoError(t, c.admin.Delete(t.Context(), &wide))
	c.expectNeighbour("db", "Exclusive", "True", "OnlyPolicy", "")

	other := c.newApp("namespace")
	other.Spec.Selector = &v1alpha1.LabelSelector{}
	require.NoError(t, c.admin.Create(t.Context(), other))
	c.expectNeighbour("db", "Overlapping", "True", "OtherAppIsolations", ": namespace")
	c.expectNeighbour("namespace", "Overlapping", "True", "OtherAppIsolations", ": db")
	c.expectNeighbour("db", "Exclusive", "True", "OnlyPolicy", "")
	pod.Labels = map[string]string{"role": "web"}
	require.NoError(t, c.admin.Update(t.Context(), pod))
	c.expectNeighbour("db", "Overlapping", "False", "NoOverlap", "")
	c.expectNeighbour("namespace", "Overlapping", "False", "NoOverlap", "")

	disabled := c.app()
	disabled.Spec.Mode = v1alpha1.ModeDisabled
	require.NoError(t, c.admin.Update(t.Context(), disabled))
	c.expectNeighbour("db", "Exclusive", "Unknown", "NotProgrammed", "")
	c.expectNeighbour("db", "Overlapping", "Unknown", "NotProgrammed", "")
}
