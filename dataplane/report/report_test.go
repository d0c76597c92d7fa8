package report

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/report/reporttest"
)

func policyAt(uid string, generation int64) *policy.Policy {
	return &policy.Policy{UID: types.UID(uid), Generation: generation}
}

func viewOf(selecting ...*policy.Policy) *Outcome { return &Outcome{Known: true, Selecting: selecting} }

// reported returns what the reporter would write after an observation.
func reported(r *Reporter, o *Outcome, syncErr error) *v1alpha1.NodeEnforcementStatus {
	o.Err = syncErr
	r.Observe(o)
	return r.Wanted()
}

func newTestReporter() *Reporter { return New(nil, nil, "node-1", logr.Discard()) }

// The report says of a generation that it is enforced only after a sync that held
// it has ended well.
func TestReportIsTruthful(t *testing.T) {
	r, broken := newTestReporter(), errors.New("broken")

	require.Equal(t, "a!SyncFailed", reporttest.List(reported(r, viewOf(policyAt("a", 1)), broken)), "never in force")
	require.Equal(t, "a@1", reporttest.List(reported(r, viewOf(policyAt("a", 1)), nil)))
	require.Equal(t, "a@2", reporttest.List(reported(r, viewOf(policyAt("a", 2)), nil)), "a new generation is confirmed even if no rule changed")

	status := reported(r, viewOf(policyAt("b", 1), policyAt("a", 3), policyAt("c", 1)), nil)
	require.Equal(t, "a@3 b@1 c@1", reporttest.List(status), "sorted")
	require.EqualValues(t, 3, status.PolicyCount)

	status = reported(r, viewOf(policyAt("a", 4), policyAt("b", 1), policyAt("d", 1)), broken)
	require.Equal(t, "b@1 a!SyncFailed d!SyncFailed", reporttest.List(status), "b is as it was; of a only an older generation is in force")
	require.EqualValues(t, 1, status.PolicyCount)

	status = reported(r, viewOf(policyAt("a", 3)), broken)
	require.Equal(t, "a@3", reporttest.List(status), "back at what the kernel holds")
	require.Empty(t, reporttest.List(reported(r, viewOf(), nil)))
	require.Equal(t, "a!SyncFailed", reporttest.List(reported(r, viewOf(policyAt("a", 3)), broken)), "what was taken out is no longer in force")
}

func TestReportWithoutView(t *testing.T) {
	status := reported(newTestReporter(), &Outcome{}, iptables.ErrMissing)
	require.Empty(t, reporttest.List(status))
	synced := apimeta.FindStatusCondition(status.Conditions, v1alpha1.NodeConditionDataplaneSynced)
	require.Equal(t, metav1.ConditionFalse, synced.Status)
	require.Equal(t, v1alpha1.NodeReasonIptablesMissing, synced.Reason)
}

func TestReportUnreadablePolicy(t *testing.T) {
	p := policyAt("a", 1)
	p.Unreadable = []error{errors.New("spec.ingress[0].from[1]: odd"), errors.New("spec.podSelector: odder")}
	status := reported(newTestReporter(), viewOf(p, policyAt("b", 1)), nil)
	require.Equal(t, "b@1 a!PolicyUnreadable", reporttest.List(status))
	require.Contains(t, status.Failures[0].Message, "spec.ingress[0].from[1]: odd")
	require.Contains(t, status.Failures[0].Message, "spec.podSelector: odder")
}

func TestReportIsBounded(t *testing.T) {
	var many []*policy.Policy
	for i := range v1alpha1.MaxReportedPolicies + 1 {
		many = append(many, policyAt(fmt.Sprintf("%04d", i), 1))
	}
	status := reported(newTestReporter(), viewOf(many...), nil)
	require.Len(t, status.Policies, v1alpha1.MaxReportedPolicies)
	require.True(t, status.Truncated)
	require.EqualValues(t, v1alpha1.MaxReportedPolicies+1, status.PolicyCount)

	status = reported(newTestReporter(), viewOf(many[1:]...), nil)
	require.Len(t, status.Policies, v1alpha1.MaxReportedPolicies)
	require.False(t, status.Truncated)

	status = reported(newTestReporter(), viewOf(many...), errors.New("broken"))
	require.Len(t, status.Failures, maxFailures)
}

func TestReportConditions(t *testing.T) {
	for _, test := range []struct {
		name               string
		syncErr            error
		degraded           []Degradation
		synced, isDegraded metav1.ConditionStatus
		reason             string
	}{
		{"all is well", nil, nil, "True", "False", v1alpha1.NodeReasonSynced},
		{"some failure", errors.New("x"), nil, "False", "False", v1alpha1.NodeReasonSyncFailed},
		{"no iptables", fmt.Errorf("a: %w", iptables.ErrMissing), nil, "False", "False", v1alpha1.NodeReasonIptablesMissing},
		{"iptables not permitted", &iptables.Error{Stderr: "Permission denied (you must be root)"}, nil, "False", "False", v1alpha1.NodeReasonPermissionDenied},
		{"ipset not permitted", fmt.Errorf("a: %w", unix.EPERM), nil, "False", "False", v1alpha1.NodeReasonPermissionDenied},
		{"restore fails", fmt.Errorf("a: %w", &iptables.Error{Stderr: "line 3 failed"}), nil, "False", "False", v1alpha1.NodeReasonRestoreFailed},
		{"bridge unfiltered", nil, DegradedBy(v1alpha1.NodeReasonBridgeNetfilterOff, errors.New("load br_netfilter")), "True", "True", v1alpha1.NodeReasonSynced},
	} {
		conditions := conditionsOf(test.syncErr, test.degraded)
		synced := apimeta.FindStatusCondition(conditions, v1alpha1.NodeConditionDataplaneSynced)
		degraded := apimeta.FindStatusCondition(conditions, v1alpha1.NodeConditionDegraded)
		require.Equal(t, test.synced, synced.Status, test.name)
		require.Equal(t, test.reason, synced.Reason, test.name)
		require.Equal(t, test.isDegraded, degraded.Status, test.name)
		if test.syncErr != nil {
			require.Contains(t, synced.Message, test.syncErr.Error(), test.name)
		}
		for _, d := range test.degraded {
			require.Equal(t, d.Reason, degraded.Reason, test.name)
			require.Contains(t, degraded.Message, d.Err.Error(), test.name)
		}
	}
}

func TestMessageIsBoundedAndReadable(t *testing.T) {
	require.Equal(t, "short", Message(errors.New("short")))
	exact := strings.Repeat("x", MaxMessage)
	require.Equal(t, exact, Message(errors.New(exact)))

	for shift := range 4 {
		cut := Message(errors.New(strings.Repeat("x", shift) + strings.Repeat("€", 200)))
		require.LessOrEqual(t, len(cut), MaxMessage)
		require.True(t, utf8.ValidString(cut), "cut inside a character: %q", cut)
		require.True(t, strings.HasSuffix(cut, "€..."), cut)
	}
	require.True(t, utf8.ValidString(Message(errors.New("bad byte \xff"))), "stored as it is compared")
}

// A pod that is new, or has other labels, is listed after a sync that ended well with it. That
// a pod is gone is no reason to write; that it is selected no more is one, since it may be
// selected again before the agent knows.
func TestReportListsThePodsThatAreSeen(t *testing.T) {
	pods := func(digests ...string) *Outcome {
		v := viewOf(policyAt("a", 1))
		v.Seen = map[types.UID]string{}
		for _, digest := range digests {
			v.Seen[types.UID(digest[:1])] = digest[1:]
		}
		return v
	}
	r, broken := newTestReporter(), errors.New("broken")
	require.Empty(t, reported(r, pods("1x"), broken).Pods, "never in force")
	require.Equal(t, []string{"x", "y"}, reported(r, pods("2y", "1x"), nil).Pods, "in order")
	require.Equal(t, []string{"x", "y"}, reported(r, pods("2y", "1x", "3z"), broken).Pods, "one that came since isn't in force")
	require.Equal(t, []string{"x", "y", "z"}, reported(r, pods("2y", "1x", "3z"), nil).Pods)
	require.Equal(t, []string{"x", "y", "z"}, reported(r, pods("2y"), nil).Pods, "two are gone")
	require.Equal(t, []string{"other"}, reported(r, pods("2other"), nil).Pods, "one has other labels")
	require.Empty(t, reported(r, pods("2"), nil).Pods, "and is selected no more")

	var many []string
	for i := range v1alpha1.MaxReportedPods + 1 {
		many = append(many, fmt.Sprintf("%c%04d", rune(0x100+i), i))
	}
	v := viewOf()
	v.Seen = map[types.UID]string{}
	for _, digest := range many {
		v.Seen[types.UID(digest)] = digest
	}
	status := reported(newTestReporter(), v, nil)
	require.Len(t, status.Pods, v1alpha1.MaxReportedPods)
	require.True(t, status.Truncated)
}
