package dataplane

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/pacing"
	"github.com/moat-dev/moat/dataplane/report"
	"github.com/moat-dev/moat/dataplane/report/reporttest"
)

// A namespace that owes the node time changes nothing of what is in force there until its turn
// comes, and what it wants to close is closed. Others' changes are in force at once, and the
// status says which version isn't.
func TestAChangeThatWaits(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.namespace("busy", nil)
		s.pod("busy", "first", map[string]string{"app": "first"}, "10.244.1.20", "fd00:10:244:1::20")
		s.pod("busy", "second", map[string]string{"app": "second"}, "10.244.1.21", "fd00:10:244:1::21")
		busy := func(generation int, apps string, port int) {
			s.apply(fmt.Sprintf("metadata: {name: changing, namespace: busy, generation: %d}\nspec: {podSelector: {matchExpressions: [{key: app, operator: In, values: [%s]}]}, policyTypes: [Ingress], ingress: [{ports: [{port: %d}]}]}", generation, apps, port))
		}
		busy(1, "first", 80)
		s.sync()
		s.requireTCP(true, "busybox", "first", 80)
		s.requireTCP(false, "busybox", "first", 81)

		s.enforcer.pace.Charge("busy", time.Hour, time.Now())
		busy(2, "first, second", 81)
		s.label("test-np", map[string]string{"role": "db"})
		s.apply(walkThrough)
		s.sync()
		s.requireWalkThrough()
		s.requireTCP(true, "busybox", "first", 80)
		s.requireTCP(false, "busybox", "first", 81)
		s.requireTCP(false, "busybox", "second", 80)
		s.requireTCP(false, "busybox", "second", 81)
		status := observed(report.New(nil, nil, "node-1", logr.Discard()), s.enforcer.view, nil)
		require.Equal(t, "busy/changing!Throttled", reporttest.List(&v1alpha1.NodeEnforcementStatus{Failures: status.Failures}))
		require.True(t, strings.HasPrefix(status.Failures[0].Message, "the policies of its namespace change so often"))

		select {
		case <-s.model.Changed: // of these changes
		default:
		}
		s.enforcer.pace.Forgive()
		s.enforcer.pace.Charge("busy", pacing.Free+100*time.Millisecond/pacing.Share, time.Now())
		s.enforcer.pace.GoOn(s.model.Renew, time.Now())
		select {
		case <-s.model.Changed:
		case <-time.After(10 * time.Second):
			require.Fail(t, "nothing wakes the loop when the turn comes")
		}
		s.sync()
		s.requireTCP(false, "busybox", "first", 80)
		s.requireTCP(true, "busybox", "first", 81)
		s.requireTCP(true, "busybox", "second", 81)
		require.Empty(t, observed(report.New(nil, nil, "node-1", logr.Discard()), s.enforcer.view, nil).Failures)
	})
}
