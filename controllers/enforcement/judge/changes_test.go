package judge

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge/judgetest"
)

func TestChangedPolicies(t *testing.T) {
	before := judgetest.Report(judgetest.Listing("same", 1), judgetest.Listing("newer", 1), judgetest.Listing("gone", 1), judgetest.Listing("fails", 1), judgetest.Listing("recovers", 1),
		judgetest.Failing("recovers", "RestoreFailed", "why"), judgetest.Failing("still", "RestoreFailed", "why"), judgetest.Failing("says-more", "RestoreFailed", "why"))
	after := judgetest.Report(judgetest.Listing("same", 1), judgetest.Listing("newer", 2), judgetest.Listing("new", 1), judgetest.Listing("fails", 1), judgetest.Listing("recovers", 1),
		judgetest.Failing("fails", "RestoreFailed", "why"), judgetest.Failing("still", "RestoreFailed", "why"), judgetest.Failing("says-more", "RestoreFailed", "why else"))
	want := []types.UID{"fails", "gone", "new", "newer", "recovers", "says-more"}
	require.Equal(t, want, slices.Sorted(maps.Keys(ChangedPolicies(before, after))))
	require.Equal(t, want, slices.Sorted(maps.Keys(ChangedPolicies(after, before))))
	require.Empty(t, ChangedPolicies(after, after))
}

func TestConcernsWholeNode(t *testing.T) {
	healthy := judgetest.Report(judgetest.Listing("a", 1))
	broken := judgetest.Report(judgetest.Listing("a", 1), judgetest.Condition("DataplaneSynced", "False", "RestoreFailed", "why"))
	for name, test := range map[string]struct {
		before, after *v1alpha1.NodeEnforcementStatus
		want          bool
	}{
		"same":              {healthy, healthy, false},
		"other policy":      {healthy, judgetest.Report(judgetest.Listing("b", 1)), false},
		"breaks":            {healthy, broken, true},
		"recovers":          {broken, healthy, true},
		"still broken":      {broken, broken, false},
		"other reason":      {broken, judgetest.Report(judgetest.Condition("DataplaneSynced", "False", "PermissionDenied", "why")), true},
		"other message":     {broken, judgetest.Report(judgetest.Condition("DataplaneSynced", "False", "RestoreFailed", "why else")), true},
		"truncated":         {healthy, judgetest.Report(judgetest.Listing("a", 1), judgetest.Truncated), true},
		"unreadable policy": {healthy, judgetest.Report(judgetest.Condition("Degraded", "True", "PolicyUnreadable", "why")), false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, ConcernsWholeNode(test.before, test.after))
		})
	}
}
