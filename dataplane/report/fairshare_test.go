package report

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/policy"
)

func TestRoomIsSharedEvenlyBetweenNamespaces(t *testing.T) {
	for name, row := range map[string]struct {
		needs map[string]int
		room  int
		want  map[string]int
	}{
		"room for all":                      {map[string]int{"a": 3, "b": 1}, 4, map[string]int{"a": 3, "b": 1}},
		"a flood pushes out no other":       {map[string]int{"flood": 10000, "b": 20, "c": 1}, 50, map[string]int{"flood": 29, "b": 20, "c": 1}},
		"two floods share what is left":     {map[string]int{"a": 900, "b": 800, "c": 10}, 50, map[string]int{"a": 20, "b": 20, "c": 10}},
		"all of the room is used":           {map[string]int{"a": 9, "b": 9, "c": 9}, 10, map[string]int{"a": 3, "b": 3, "c": 4}},
		"more namespaces than room":         {map[string]int{"a": 1, "b": 1, "c": 2}, 2, map[string]int{"a": 0, "b": 1, "c": 1}},
		"one namespace alone has the whole": {map[string]int{"a": 600}, 500, map[string]int{"a": 500}},
	} {
		require.Equal(t, row.want, evenShares(row.needs, row.room), name)
	}
}

func TestWhatFitsKeepsItsOrder(t *testing.T) {
	namespaceOf := func(item string) string { return item[:1] }
	items := []string{"a1", "b1", "a2", "a3", "b2", "a4"}
	require.Equal(t, []string{"a1", "b1", "a2", "b2"}, shareFairly(items, 4, namespaceOf))
	require.Equal(t, items, shareFairly(items, len(items), namespaceOf))
	require.Empty(t, shareFairly(items, 0, namespaceOf))
}

// policiesOf makes policies of a namespace whose uids begin with the text.
func policiesOf(namespace, uid string, n int) []*policy.Policy {
	policies := make([]*policy.Policy, n)
	for i := range policies {
		policies[i] = policyAt(fmt.Sprintf("%s%05d", uid, i), 1)
		policies[i].Namespace = namespace
	}
	return policies
}

// One namespace's flood of policies pushes no other namespace's policy out of the report,
// neither those in force nor the failures.
func TestAFloodPushesNoOtherNamespaceOutOfTheReport(t *testing.T) {
	innocent := policiesOf("innocent", "z", 20) // sorted last
	all := append(policiesOf("flood", "a", 2*v1alpha1.MaxReportedPolicies), innocent...)

	status := reported(newTestReporter(), viewOf(all...), nil)
	require.Len(t, status.Policies, v1alpha1.MaxReportedPolicies)
	require.True(t, status.Truncated)
	require.EqualValues(t, len(all), status.PolicyCount)
	for _, p := range innocent {
		require.Contains(t, status.Policies, v1alpha1.EnforcedPolicy{UID: p.UID, Generation: 1})
	}

	for _, p := range all {
		p.Unreadable = []error{fmt.Errorf("odd")}
	}
	status = reported(newTestReporter(), viewOf(all...), nil)
	require.Len(t, status.Failures, maxFailures)
	for _, p := range innocent {
		require.True(t, slices.ContainsFunc(status.Failures, func(f v1alpha1.PolicyFailure) bool { return f.UID == p.UID }), p.UID)
	}
}
