package report

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// Degradation is something that the node can't enforce although its agent works. Its
// source finds it and names it; the agent reports all of them in the condition Degraded.
// An agent of a degraded node is Ready: it does what can be done, and one node must not
// stop the rollout of all.
type Degradation struct {
	Reason string // one of degradedReasons
	Err    error  // what is wrong, and what to do about it
}

// DegradedReasons are the reasons of the condition Degraded, the gravest first.
var DegradedReasons = []string{
	v1alpha1.NodeReasonBridgeNetfilterOff, // pods of the node reach each other past all rules
	v1alpha1.NodeReasonProxyModeIPVS,      // Services lead past the ingress rules of the node's pods
	v1alpha1.NodeReasonStorageUnreadable,  // no change arrives
	v1alpha1.NodeReasonConnectionsUncut,   // connections from before a policy go on
}

// DegradedBy returns the degradation that an error of a source is, none for nil.
func DegradedBy(reason string, err error) []Degradation {
	if err == nil {
		return nil
	}
	return []Degradation{{reason, err}}
}

// SortDegradations puts the gravest first.
func SortDegradations(found []Degradation) {
	slices.SortStableFunc(found, func(a, b Degradation) int {
		return slices.Index(DegradedReasons, a.Reason) - slices.Index(DegradedReasons, b.Reason)
	})
}

// ReasonsOf returns the reasons in the given order.
func ReasonsOf(found []Degradation) []string {
	reasons := make([]string, len(found))
	for i := range found {
		reasons[i] = found[i].Reason
	}
	return reasons
}

// DegradedCondition says what the node can't enforce. It expects the gravest first, and
// has the reason of that one. Where there are several the message begins with all of
// their reasons, since it may have no room for all that they say.
func DegradedCondition(found []Degradation) metav1.Condition {
	condition := metav1.Condition{
		Type:    v1alpha1.NodeConditionDegraded,
		Status:  metav1.ConditionFalse,
		Reason:  v1alpha1.NodeReasonHealthy,
		Message: "Everything on this node can be enforced",
	}
	if len(found) == 0 {
		return condition
	}
	errs := make([]error, len(found))
	for i := range found {
		errs[i] = found[i].Err
	}
	err := errors.Join(errs...)
	if len(found) > 1 {
		err = fmt.Errorf("%s: %w", strings.Join(ReasonsOf(found), ", "), err)
	}
	condition.Status, condition.Reason, condition.Message = metav1.ConditionTrue, found[0].Reason, Message(err)
	return condition
}
