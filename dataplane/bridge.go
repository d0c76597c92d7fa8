package dataplane

import (
	"slices"
	"time"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/host"
	"github.com/moat-dev/moat/dataplane/report"
)

// nodeLookEvery is the least time between two looks at what of the node lets packets
// pass by the rules, which a sync that moves an element of a set need not wait for.
const nodeLookEvery = time.Second

// nodeLook is what byPasses found last, and when.
type nodeLook struct {
	at    time.Time
	found []report.Degradation
}

// byPasses returns the ways around the rules that the node has, or what was found less
// than nodeLookEvery ago if that was nothing.
func (a *Agent) byPasses(now time.Time) []report.Degradation {
	if len(a.look.found) > 0 || now.Sub(a.look.at) >= nodeLookEvery {
		a.look = nodeLook{now, slices.Concat(
			report.DegradedBy(v1alpha1.NodeReasonBridgeNetfilterOff, host.FilterBridged(a.options.SysctlDir)),
			report.DegradedBy(v1alpha1.NodeReasonProxyModeIPVS, host.ServesByIPVS()),
		)}
	}
	return a.look.found
}
