package appstatus

import (
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestReady(t *testing.T) {
	enforced := metav1.Condition{Type: "Enforced", Status: "True", Reason: "AllNodesEnforced", Message: "all"}
	accepted := metav1.Condition{Type: "Accepted", Status: "True", Reason: "Accepted"}
	programmed := metav1.Condition{Type: "Programmed", Status: "True", Reason: "Programmed"}
	not := func(condition metav1.Condition, status metav1.ConditionStatus, reason string) metav1.Condition {
		condition.Status, condition.Reason = status, reason
		return condition
	}
	for name, test := range map[string]struct {
		accepted, programmed, enforced metav1.Condition
		status                         metav1.ConditionStatus
		reason                         string
	}{
		"all hold":         {accepted, programmed, enforced, "True", "AllNodesEnforced"},
		"not accepted":     {not(accepted, "False", "Invalid"), not(programmed, "False", "ApplyFailed"), not(enforced, "False", "NotProgrammed"), "False", "Invalid"},
		"not programmed":   {accepted, not(programmed, "False", "Disabled"), not(enforced, "False", "NotProgrammed"), "False", "Disabled"},
		"not enforced":     {accepted, programmed, not(enforced, "False", "Progressing"), "False", "Progressing"},
		"unknown":          {accepted, programmed, not(enforced, "Unknown", "AgentMissing"), "Unknown", "AgentMissing"},
		"nothing selected": {accepted, programmed, not(enforced, "True", "NoSelectedPods"), "True", "NoSelectedPods"},
	} {
		t.Run(name, func(t *testing.T) {
			condition := ready([]metav1.Condition{test.programmed, test.accepted}, test.enforced)
			require.Equal(t, "Ready", condition.Type)
			require.Equal(t, test.status, condition.Status)
			require.Equal(t, test.reason, condition.Reason)
		})
	}
}
