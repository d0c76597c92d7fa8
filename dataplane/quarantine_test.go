package dataplane

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/policy"
)

// Who is selected by a policy in quarantine is closed in the directions in which
// that policy isolates, whatever other policies allow there.
func TestQuarantineClosesWhatThePolicyIsolates(t *testing.T) {
	bad, good := &policy.Policy{UID: "bad", Generation: 1}, &policy.Policy{UID: "good", Generation: 1}
	endpoints := []policy.Endpoint{
		{Pod: &policy.Pod{Name: "ingress"}, Isolating: [policy.Directions][]*policy.Policy{{good, bad}, {good}}},
		{Pod: &policy.Pod{Name: "egress"}, Isolating: [policy.Directions][]*policy.Policy{nil, {bad}}},
		{Pod: &policy.Pod{Name: "neither"}, Isolating: [policy.Directions][]*policy.Policy{{good}, {good}}},
	}
	require.Equal(t, endpoints, quarantine(nil).close(endpoints))
	q := quarantine(nil).with([]policyID{idOf(bad)}, errors.New("broken"), time.Time{})
	closed := q.close(endpoints)
	nothing := []*policy.Policy{policy.AllowsNothing}
	require.Equal(t, [policy.Directions][]*policy.Policy{nothing, {good}}, closed[0].Isolating)
	require.Equal(t, [policy.Directions][]*policy.Policy{nil, nothing}, closed[1].Isolating, "what it doesn't isolate stays open")
	require.Equal(t, endpoints[2], closed[2])
	require.Equal(t, []*policy.Policy{good, bad}, endpoints[0].Isolating[policy.Ingress], "the argument stays as it is")
}

func TestQuarantineEnds(t *testing.T) {
	now := time.Unix(1000, 0)
	a, b := policyID{"a", 1}, policyID{"b", 1}
	q := quarantine(nil).with([]policyID{a, b}, errors.New("broken"), now)
	require.Equal(t, []policyID{a, b}, q.due(now), "those that come are tried at once")

	waits := []time.Duration{}
	for range 8 {
		q.refused(a, errors.New("refused"), now)
		waits = append(waits, q[a].wait)
		require.Equal(t, []policyID{b}, q.due(now.Add(q[a].wait-1)))
		require.Equal(t, []policyID{a, b}, q.due(now.Add(q[a].wait)))
	}
	require.Equal(t, quarantineFirst, waits[0])
	require.Equal(t, 2*quarantineFirst, waits[1])
	require.Equal(t, quarantineMost, waits[7])
	require.EqualError(t, q.reasons()["a"], "refused")

	again := q.with([]policyID{a}, errors.New("other"), now)
	require.Equal(t, q[a], again[a], "who is in stays as he is")

	q.keep([]*policy.Policy{{UID: "a", Generation: 2}, {UID: "b", Generation: 1}})
	require.NotContains(t, q, a, "another generation is not in quarantine")
	require.Contains(t, q, b)
	q.keep(nil)
	require.Empty(t, q)
}
