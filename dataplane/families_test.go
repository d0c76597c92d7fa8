package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	apimeta "k8s.io/apimachinery/pkg/api/meta"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/kernel"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/report"
	"github.com/moat-dev/moat/dataplane/report/reporttest"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

func TestFamilyErrorsNameEachFamily(t *testing.T) {
	require.NoError(t, kernel.FamilyErrors{}.OrNil())
	four, six := errors.New("a"), &iptables.Error{Program: "ip6tables", Err: errors.New("b")}
	err := fmt.Errorf("wrapped: %w", kernel.FamilyErrors{ruleset.IPv6: six, ruleset.IPv4: four}.OrNil())
	require.EqualError(t, err, "wrapped: IPv4: a; IPv6: running ip6tables: b")
	require.ErrorIs(t, err, four)
	require.True(t, iptables.IsFailure(err))
	broken, byFamily := kernel.BrokenFamilies(err)
	require.True(t, byFamily)
	require.Len(t, broken, 2)
	_, byFamily = kernel.BrokenFamilies(four)
	require.False(t, byFamily)
}

// A kernel without a module is told from other failures, with what brings the module.
func TestAMissingModuleIsReported(t *testing.T) {
	lacks := &iptables.Error{Program: "iptables-nft-restore", Stderr: "Warning: Extension set revision 0 not supported, missing kernel module?", Err: errors.New("exit status 4")}
	err := kernel.ExplainModule(kernel.FamilyErrors{ruleset.IPv4: lacks})
	r := report.New(nil, nil, "node-1", logr.Discard())
	synced := apimeta.FindStatusCondition(observed(r, nil, err).Conditions, v1alpha1.NodeConditionDataplaneSynced)
	require.Equal(t, v1alpha1.NodeReasonModuleMissing, synced.Reason)
	require.Contains(t, synced.Message, "lacks the module xt_set or nft_compat (RHEL 10 has it in the package kernel-modules-extra)")

	other := errors.New("some other")
	require.Equal(t, other, kernel.ExplainModule(other))
	require.NoError(t, kernel.ExplainModule(nil))
}

// After a sync that failed in one family, policies count as enforced whose pods have no
// address of it. Where rules are damaged, those whose pods have one don't, whatever was before.
func TestPoliciesAreInForceByFamily(t *testing.T) {
	four := &policy.Policy{UID: "four", Generation: 2}
	both := &policy.Policy{UID: "both", Generation: 2}
	endpoint := func(p *policy.Policy, addrs ...string) policy.Endpoint {
		e := policy.Endpoint{Pod: &policy.Pod{}}
		for _, addr := range addrs {
			e.Pod.Addrs = append(e.Pod.Addrs, netip.MustParseAddr(addr))
		}
		e.Isolating[policy.Ingress] = []*policy.Policy{p}
		return e
	}
	v := &view{View: node.View{
		Selecting: []*policy.Policy{four, both},
		Endpoints: []policy.Endpoint{endpoint(four, "10.244.1.10"), endpoint(both, "10.244.1.11", "fd00::11")},
	}}
	six := kernel.FamilyErrors{ruleset.IPv6: errors.New("no")}
	for _, row := range []struct {
		err     error
		damaged []ruleset.Family
		before  int64
		want    string
	}{
		{nil, nil, 1, "both@2 four@2"},
		{six, nil, 1, "four@2 both!SyncFailed"},
		{six, nil, 2, "both@2 four@2"},
		{six, []ruleset.Family{ruleset.IPv6}, 2, "four@2 both!SyncFailed"},
		{errors.New("all"), nil, 2, "both@2 four@2"},
		{errors.New("all"), ruleset.Families(), 2, "both!SyncFailed four!SyncFailed"},
	} {
		r := report.New(nil, nil, "node-1", logr.Discard())
		before := &view{}
		for _, p := range v.Selecting {
			earlier := *p
			earlier.Generation = row.before
			before.Selecting = append(before.Selecting, &earlier)
		}
		observed(r, before, nil)
		v.damaged = row.damaged
		require.Equal(t, row.want, reporttest.List(observed(r, v, row.err)), "%+v", row)
	}
}
