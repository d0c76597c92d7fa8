package judge

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// maxNames is how many policies a message names.
const maxNames = 10

// maxCompared is how many policies that select the same pods are compared rule by rule. Of
// 10,000 large ones each AppIsolation would take a worker for half a second.
const maxCompared = 200

// Neighbours are the other policies that select some of an AppIsolation's pods. The zero value
// has none.
type Neighbours struct {
	// widening allow more than the AppIsolation's own policy, by name.
	widening []string
	// apps are the AppIsolations whose policies are among the neighbours.
	apps []string
}

// NeighboursOf compares the policy at index own with the other policies of its namespace. pods
// are the labels of the pods that it selects: see LabelSets. Policies beyond maxCompared count
// as allowing more, so that none is left out that does.
func NeighboursOf(policies []networkingv1.NetworkPolicy, own int, pods []labels.Set) Neighbours {
	var n Neighbours
	compared := 0
	for i := range policies {
		other := &policies[i]
		if i == own || !selectsAny(&other.Spec.PodSelector, pods) {
			continue
		}
		if app, generated := AppOf(other); generated {
			n.apps = append(n.apps, app)
		}
		compared++
		if compared > maxCompared || widens(&policies[own].Spec, &other.Spec) {
			n.widening = append(n.widening, other.Name)
		}
	}
	slices.Sort(n.widening)
	slices.Sort(n.apps)
	return n
}

// LabelSets returns each set of labels once: the replicas of a workload differ
// in little or nothing.
func LabelSets(pods []*corev1.Pod) []labels.Set {
	var sets []labels.Set
	seen := map[string]bool{}
	for _, pod := range pods {
		set := labels.Set(pod.Labels)
		if text := set.String(); !seen[text] {
			seen[text] = true
			sets = append(sets, set)
		}
	}
	return sets
}

func selectsAny(selector *metav1.LabelSelector, pods []labels.Set) bool {
	parsed := SelectorOf(selector)
	return slices.ContainsFunc(pods, func(set labels.Set) bool { return parsed.Matches(set) })
}

// Conditions returns Exclusive and Overlapping, without observedGeneration and time.
func (n Neighbours) Conditions() []metav1.Condition {
	exclusive := metav1.Condition{
		Type: v1alpha1.ConditionExclusive, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonOnlyPolicy,
		Message: "no other policy allows more to the selected pods",
	}
	if len(n.widening) > 0 {
		exclusive.Status, exclusive.Reason = metav1.ConditionFalse, v1alpha1.ReasonWidenedByOtherPolicies
		exclusive.Message = "these policies select some of the same pods and allow more: " + list(n.widening)
	}
	overlapping := metav1.Condition{
		Type: v1alpha1.ConditionOverlapping, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonNoOverlap,
		Message: "no other AppIsolation selects one of the selected pods",
	}
	if len(n.apps) > 0 {
		overlapping.Status, overlapping.Reason = metav1.ConditionTrue, v1alpha1.ReasonOtherAppIsolations
		overlapping.Message = "these AppIsolations select some of the same pods, and what any of them allows is allowed: " + list(n.apps)
	}
	return []metav1.Condition{exclusive, overlapping}
}

// WithoutPolicy returns Exclusive and Overlapping where there is no policy to compare.
func WithoutPolicy() []metav1.Condition {
	var conditions []metav1.Condition
	for _, name := range []string{v1alpha1.ConditionExclusive, v1alpha1.ConditionOverlapping} {
		conditions = append(conditions, metav1.Condition{
			Type: name, Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonNotProgrammed,
			Message: "there is no policy of this generation to compare with others",
		})
	}
	return conditions
}

func list(names []string) string {
	if len(names) <= maxNames {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNames], ", "), len(names)-maxNames)
}
