package kernel

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// FamilyErrors says of each family whose rules are not in force why. The other
// families' are. Nil where all are.
type FamilyErrors map[ruleset.Family]error

// Error implements error.
func (f FamilyErrors) Error() string {
	var texts []string
	for _, family := range ruleset.Families() {
		if err := f[family]; err != nil {
			texts = append(texts, fmt.Sprintf("%s: %v", family, err))
		}
	}
	return strings.Join(texts, "; ")
}

// Unwrap lets errors.As look at each.
func (f FamilyErrors) Unwrap() []error {
	var errs []error
	for _, family := range ruleset.Families() {
		if err := f[family]; err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// OrNil returns no error where there is none.
func (f FamilyErrors) OrNil() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// BrokenFamilies returns the families that an error is about; false where it is about
// the whole node.
func BrokenFamilies(err error) (FamilyErrors, bool) {
	var broken FamilyErrors
	return broken, errors.As(err, &broken)
}

// MissingModule names the kernel module for lack of which a sync failed, empty for none.
func MissingModule(err error) string {
	if module := ipset.MissingModule(err); module != "" {
		return module
	}
	return iptables.MissingModule(err)
}

// ExplainModule says which module a sync failed for, and where it is found. RHEL 10's
// images lack the package (kubernetes/kops#18724, openshift/microshift#7069).
func ExplainModule(err error) error {
	module := MissingModule(err)
	if module == "" {
		return err
	}
	return fmt.Errorf("the kernel lacks the module %s (RHEL 10 has it in the package kernel-modules-extra): %w", module, err)
}
