package ipset

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// What the kernel answers where it lacks ipset or a type of set.
func TestMissingModule(t *testing.T) {
	listing := func(err error) error { return fmt.Errorf("listing ipsets: %w", ofListing(err)) }
	for _, err := range []error{unix.EINVAL, unix.EPROTONOSUPPORT, unix.ENOENT} {
		require.Equal(t, "ip_set", MissingModule(listing(err)), err)
		require.ErrorIs(t, listing(err), err)
		require.Equal(t, fmt.Sprintf("listing ipsets: %v", err), listing(err).Error())
	}
	for _, err := range []error{unix.EPERM, unix.ENOBUFS, errors.New("some other")} {
		require.Empty(t, MissingModule(listing(err)), err)
	}
	unknown := nl.IPSetError(nl.IPSET_ERR_FIND_TYPE)
	for kind, module := range map[ruleset.SetType]string{
		ruleset.HashIP: "ip_set_hash_ip", ruleset.HashNet: "ip_set_hash_net",
		ruleset.HashIPPort: "ip_set_hash_ipport", ruleset.HashIPPortIP: "ip_set_hash_ipportip",
	} {
		require.Equal(t, module, MissingModule(ofCreating(kind, unknown)))
		require.Empty(t, MissingModule(ofCreating(kind, unix.EINVAL)))
	}
	require.Empty(t, MissingModule(nil))
}
