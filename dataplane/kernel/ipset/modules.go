package ipset

import (
	"errors"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// moduleError says that the kernel lacks a module.
type moduleError struct {
	module string
	err    error
}

func (e *moduleError) Error() string { return e.err.Error() }

func (e *moduleError) Unwrap() error { return e.err }

// MissingModule names the missing kernel module that made a request fail. It is empty where none
// is missing.
func MissingModule(err error) string {
	var missing *moduleError
	if errors.As(err, &missing) {
		return missing.module
	}
	return ""
}

// ofListing wraps the error of a listing of all sets if it says that there is no ipset: the kernel
// lacks that part of netfilter (nfnetlink_rcv_msg in net/netfilter/nfnetlink.c answers
// EINVAL), or all of netfilter.
func ofListing(err error) error {
	for _, unknown := range []error{unix.EINVAL, unix.EPROTONOSUPPORT, unix.ENOENT, unix.EOPNOTSUPP} {
		if errors.Is(err, unknown) {
			return &moduleError{"ip_set", err}
		}
	}
	return err
}

// ofCreating wraps the error of making a set if it says that the kernel lacks the set's type.
func ofCreating(kind ruleset.SetType, err error) error {
	if errors.Is(err, nl.IPSetError(nl.IPSET_ERR_FIND_TYPE)) {
		return &moduleError{"ip_set_" + strings.NewReplacer(":", "_", ",", "").Replace(string(kind)), err}
	}
	return err
}
