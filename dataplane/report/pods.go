package report

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// podList is which pods the report lists. The zero value lists none.
type podList struct {
	listed  map[types.UID]string
	digests []string // those of listed, in order
}

// follow takes the pods of this node whose rules the kernel holds, as seenPods returns
// them. That a pod is gone changes nothing: no status asks for it any more, and half of the
// writes would say nothing else.
func (l *podList) follow(seen map[types.UID]string) {
	changed := false
	for uid, digest := range seen {
		changed = changed || l.listed[uid] != digest
	}
	if !changed {
		return
	}
	l.listed = maps.Clone(seen)
	maps.DeleteFunc(l.listed, func(_ types.UID, digest string) bool { return digest == "" })
	l.digests = slices.Sorted(maps.Values(l.listed))
}

// report writes the list into a status.
func (l *podList) report(status *v1alpha1.NodeEnforcementStatus) {
	status.Pods = l.digests
	if len(status.Pods) > v1alpha1.MaxReportedPods {
		status.Pods, status.Truncated = status.Pods[:v1alpha1.MaxReportedPods], true
	}
}
