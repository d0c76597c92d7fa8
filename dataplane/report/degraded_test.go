package report

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// Each source has a reason of its own. Of several the gravest is the condition's, and
// the message names all, however long what the first says is.
func TestTheDegradedConditionNamesAllReasons(t *testing.T) {
	require.Equal(t, metav1.ConditionFalse, DegradedCondition(nil).Status)
	require.Equal(t, v1alpha1.NodeReasonHealthy, DegradedCondition(nil).Reason)
	for _, reason := range DegradedReasons {
		condition := DegradedCondition(DegradedBy(reason, errors.New("this is why")))
		require.Equal(t, metav1.ConditionTrue, condition.Status)
		require.Equal(t, reason, condition.Reason)
		require.Equal(t, "this is why", condition.Message)
	}

	var all []Degradation
	for _, reason := range DegradedReasons {
		all = append(DegradedBy(reason, errors.New(strings.Repeat("why ", MaxMessage))), all...)
	}
	SortDegradations(all)
	condition := DegradedCondition(all)
	require.Equal(t, v1alpha1.NodeReasonBridgeNetfilterOff, condition.Reason)
	require.LessOrEqual(t, len(condition.Message), MaxMessage)
	for _, reason := range DegradedReasons {
		require.Contains(t, condition.Message, reason)
	}
}
