package dataplane

import (
	"fmt"
	"strings"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/report"
)

// observed returns what the reporter would write after a sync of the view, which may be nil.
func observed(r *report.Reporter, v *view, syncErr error) *v1alpha1.NodeEnforcementStatus {
	r.Observe(outcomeOf(iptables.NFT, v, syncErr, nil))
	return r.Wanted()
}

// listed writes "uid@generation" for what is enforced and "uid!reason" for what isn't.
func listed(status *v1alpha1.NodeEnforcementStatus) string {
	var words []string
	for _, p := range status.Policies {
		words = append(words, fmt.Sprintf("%s@%d", p.UID, p.Generation))
	}
	for _, f := range status.Failures {
		words = append(words, fmt.Sprintf("%s!%s", f.UID, f.Reason))
	}
	return strings.Join(words, " ")
}
