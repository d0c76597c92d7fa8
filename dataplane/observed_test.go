package dataplane

import (
	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/report"
)

// observed returns what the reporter would write after a sync of the view, which may be nil.
func observed(r *report.Reporter, v *view, syncErr error) *v1alpha1.NodeEnforcementStatus {
	r.Observe(outcomeOf(iptables.NFT, v, syncErr, nil))
	return r.Wanted()
}
