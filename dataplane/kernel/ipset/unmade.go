package ipset

import (
	"errors"

	"github.com/vishvananda/netlink/nl"
)

// unmadeError says that the kernel refused to make a set, or to replace one that has
// the wrong type.
type unmadeError struct{ err error }

func (e *unmadeError) Error() string { return e.err.Error() }

func (e *unmadeError) Unwrap() error { return e.err }

// IsUnmade reports whether a set that the plan makes doesn't exist, or still has the wrong type.
// Rules must not look it up then.
func IsUnmade(err error) bool {
	var unmade *unmadeError
	return errors.As(err, &unmade)
}

// IsFull reports whether the kernel makes no further set, since it has the most that it can:
// 65,472 of all programs together (IP_SET_INC and IPSET_INVALID_ID in
// net/netfilter/ipset/ip_set_core.c).
func IsFull(err error) bool { return errors.Is(err, ErrFull) }

// ErrFull is the kernel's answer where it has no room for a further set.
var ErrFull error = nl.IPSetError(nl.IPSET_ERR_MAX_SETS)
