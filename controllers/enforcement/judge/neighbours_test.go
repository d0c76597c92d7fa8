package judge

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
	"github.com/moat-dev/moat/controllers/enforcement/judge/judgetest"
)

func generatedFor(app string) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: v1alpha1.GroupVersion.String(), Kind: "AppIsolation", Name: app, Controller: new(true)}}
}

func TestNeighboursOf(t *testing.T) {
	const closed, open = "{policyTypes: [Ingress]}", "{policyTypes: [Ingress], ingress: [{}]}"
	own := judgetest.Policy(t, "appiso-db", closed)
	own.OwnerReferences = generatedFor("db")
	widening, harmless, generated, elsewhere := judgetest.Policy(t, "open", open), judgetest.Policy(t, "closed", closed), judgetest.Policy(t, "appiso-all", closed), judgetest.Policy(t, "elsewhere", open)
	generated.OwnerReferences = generatedFor("all")
	elsewhere.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"role": "web"}}
	unreadable := judgetest.Policy(t, "unreadable", open)
	unreadable.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"not a key": "x"}}
	pods := []labels.Set{{"role": "db"}}

	n := NeighboursOf([]networkingv1.NetworkPolicy{widening, harmless, own, generated, elsewhere, unreadable}, 2, pods)
	require.Equal(t, Neighbours{widening: []string{"open"}, apps: []string{"all"}}, n)
	require.Empty(t, NeighboursOf([]networkingv1.NetworkPolicy{own, widening}, 0, nil), "no pods are no shared pods")

	foreign := judgetest.Policy(t, "foreign", closed)
	foreign.OwnerReferences = generatedFor("x")
	foreign.OwnerReferences[0].APIVersion = "example.com/v1"
	require.Empty(t, NeighboursOf([]networkingv1.NetworkPolicy{own, foreign}, 0, pods), "another group's AppIsolation")
}

// What a reconciliation costs is bounded: policies beyond 200 that select the same pods
// aren't compared, and count as allowing more.
func TestNeighboursAreComparedUpToABound(t *testing.T) {
	policies := []networkingv1.NetworkPolicy{judgetest.Policy(t, "own", "{policyTypes: [Ingress]}")}
	for i := range maxCompared + 2 {
		policies = append(policies, judgetest.Policy(t, fmt.Sprintf("other-%03d", i), "{policyTypes: [Ingress]}"))
	}
	n := NeighboursOf(policies, 0, []labels.Set{{"role": "db"}})
	require.Equal(t, []string{"other-200", "other-201"}, n.widening)
}

func TestNeighboursNameTen(t *testing.T) {
	var n Neighbours
	for i := range 12 {
		n.widening = append(n.widening, fmt.Sprintf("p%02d", i))
	}
	exclusive := meta.FindStatusCondition(n.Conditions(), v1alpha1.ConditionExclusive)
	require.Equal(t, "these policies select some of the same pods and allow more: p00, p01, p02, p03, p04, p05, p06, p07, p08, p09 and 2 more", exclusive.Message)
	n.widening = n.widening[:10]
	exclusive = meta.FindStatusCondition(n.Conditions(), v1alpha1.ConditionExclusive)
	require.NotContains(t, exclusive.Message, "more: p09 and")
	require.Contains(t, exclusive.Message, "p08, p09")
}

func TestLabelSetsAreDistinct(t *testing.T) {
	pod := func(set map[string]string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: set}}
	}
	sets := LabelSets([]*corev1.Pod{pod(map[string]string{"a": "b"}), pod(nil), pod(map[string]string{"a": "b"}), pod(map[string]string{"a": "c"})})
	require.Equal(t, []labels.Set{{"a": "b"}, nil, {"a": "c"}}, sets)
}
