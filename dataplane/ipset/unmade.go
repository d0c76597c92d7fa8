package ipset

import "errors"

// unmadeError says that the kernel refused to make a set, or to replace one that has
// the wrong type.
type unmadeError struct{ err error }

func (e *unmadeError) Error() string { return e.err.Error() }

func (e *unmadeError) Unwrap() error { return e.err }

// IsUnmade reports whether a set that the plan makes is not there, or is another one:
// rules must not look it up.
func IsUnmade(err error) bool {
	var unmade *unmadeError
	return errors.As(err, &unmade)
}
