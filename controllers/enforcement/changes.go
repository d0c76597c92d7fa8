package enforcement

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// concernsWholeNode says whether the report changed in what bears on policies
// that it doesn't name.
func concernsWholeNode(before, after *v1alpha1.NodeEnforcementStatus) bool {
	was, is := impairment(before.Conditions), impairment(after.Conditions)
	if (was == nil) != (is == nil) || before.Truncated != after.Truncated || before.NodeUID != after.NodeUID || before.BootID != after.BootID {
		return true
	}
	return was != nil && (was.Reason != is.Reason || was.Message != is.Message)
}

// changedPolicies returns the uids of the policies of which the two reports
// don't say the same.
func changedPolicies(before, after *v1alpha1.NodeEnforcementStatus) map[types.UID]struct{} {
	was, is := statements(before), statements(after)
	changed := map[types.UID]struct{}{}
	for uid, statement := range was {
		if is[uid] != statement {
			changed[uid] = struct{}{}
		}
	}
	for uid, statement := range is {
		if was[uid] != statement {
			changed[uid] = struct{}{}
		}
	}
	return changed
}

// statement is all that a report says of one policy.
type statement struct {
	generation int64
	failure    v1alpha1.PolicyFailure
}

func statements(report *v1alpha1.NodeEnforcementStatus) map[types.UID]statement {
	all := make(map[types.UID]statement, len(report.Policies))
	for _, policy := range report.Policies {
		all[policy.UID] = statement{generation: policy.Generation}
	}
	for _, failure := range report.Failures {
		all[failure.UID] = statement{generation: all[failure.UID].generation, failure: failure}
	}
	return all
}
