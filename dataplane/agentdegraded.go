package dataplane

import (
	"slices"
	"time"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/report"
)

// degradations returns what the node can't enforce now, the gravest first.
func (a *Agent) degradations(now time.Time) []report.Degradation {
	found := slices.Concat(
		a.byPasses(now),
		report.DegradedBy(v1alpha1.NodeReasonStorageUnreadable, a.storage.Failure()),
		report.DegradedBy(v1alpha1.NodeReasonConnectionsUncut, a.enforcer.cutter.Failure()),
	)
	report.SortDegradations(found)
	return found
}
