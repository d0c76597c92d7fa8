package judge

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// ConcernsWholeNode says whether the two reports of a node differ in what bears on every
// policy there.
func ConcernsWholeNode(before, after *v1alpha1.NodeEnforcementStatus) bool {
	was, is := impairment(before.Conditions), impairment(after.Conditions)
	if (was == nil) != (is == nil) || before.Truncated != after.Truncated || before.NodeUID != after.NodeUID || before.BootID != after.BootID {
		return true
	}
	return was != nil && (was.Reason != is.Reason || was.Message != is.Message)
}

// ChangedPolicies returns the uids of the policies about which the two reports differ.
func ChangedPolicies(before, after *v1alpha1.NodeEnforcementStatus) map[types.UID]struct{} {
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

// ChangedPods returns the digests that one of two reports lists and the other doesn't.
func ChangedPods(before, after *v1alpha1.NodeEnforcementStatus) map[string]bool {
	changed := map[string]bool{}
	for _, lists := range [][2][]string{{before.Pods, after.Pods}, {after.Pods, before.Pods}} {
		for _, digest := range lists[0] {
			if _, listed := slices.BinarySearch(lists[1], digest); !listed {
				changed[digest] = true
			}
		}
	}
	return changed
}
