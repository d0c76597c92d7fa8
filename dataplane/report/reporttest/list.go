// Package reporttest reads what a node reports, for tests.
package reporttest

import (
	"fmt"
	"strings"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// List writes "uid@generation" for each policy that is enforced and "uid!reason" for each that
// isn't.
func List(status *v1alpha1.NodeEnforcementStatus) string {
	var words []string
	for _, p := range status.Policies {
		words = append(words, fmt.Sprintf("%s@%d", p.UID, p.Generation))
	}
	for _, f := range status.Failures {
		words = append(words, fmt.Sprintf("%s!%s", f.UID, f.Reason))
	}
	return strings.Join(words, " ")
}
