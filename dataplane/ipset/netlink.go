package ipset

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// maxElements is the size that every set may grow to. The kernel takes memory
// for what a set holds, not for what it may hold, so the bound is there only
// because the kernel wants one: more than the addresses of the largest clusters.
const maxElements = 1 << 20

// Kernel is the ipset part of one network namespace. It isn't safe for use by
// several goroutines at once.
type Kernel struct {
	handle *netlink.Handle
	prefix string
}

// Open connects to the network namespace of the calling thread. Only sets whose
// name begins with prefix are ever read or changed.
func Open(prefix string) (*Kernel, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening a netfilter netlink socket: %w", err)
	}
	return &Kernel{handle: handle, prefix: prefix}, nil
}

// Close closes the connection.
func (k *Kernel) Close() { k.handle.Close() }

// Read returns the sets of both families.
func (k *Kernel) Read() (State, error) {
	results, err := k.handle.IpsetListAll()
	if err != nil {
		return nil, fmt.Errorf("listing ipsets: %w", err)
	}
	state := State{}
	for i := range results {
		result := &results[i]
		if !strings.HasPrefix(result.SetName, k.prefix) {
			continue
		}
		// A large set comes in several messages, of which only the first has a
		// header.
		set, started := state[result.SetName]
		if !started {
			set = ruleset.Set{
				Name:    result.SetName,
				Type:    ruleset.SetType(result.TypeName),
				Family:  familyOf(result.Family),
				Members: ruleset.Members{},
			}
			state[result.SetName] = set
		}
		for j := range result.Entries {
			if member, ok := memberOf(&result.Entries[j]); ok {
				set.Members[member] = struct{}{}
			}
		}
	}
	return state, nil
}

// Grow does the half of the plan that comes before the rules change: sets are
// made, and elements added.
func (k *Kernel) Grow(plan *Plan) error {
	for _, name := range plan.Replace {
		if err := k.handle.IpsetDestroy(name); err != nil {
			return fmt.Errorf("destroying ipset %s, which has the wrong type: %w", name, err)
		}
	}
	for _, set := range plan.Create {
		options := netlink.IpsetCreateOptions{Replace: true, MaxElements: maxElements, Family: unix.AF_INET}
		if set.Family == ruleset.IPv6 {
			options.Family = unix.AF_INET6
		}
		if err := k.handle.IpsetCreate(set.Name, string(set.Type), options); err != nil {
			return fmt.Errorf("creating ipset %s of type %s: %w", set.Name, set.Type, err)
		}
	}
	return k.Add(plan.Add)
}

// Add adds elements. One that is there already is no error.
func (k *Kernel) Add(changes []Change) error {
	for _, change := range changes {
		if err := k.handle.IpsetAdd(change.Set, entryOf(&change)); err != nil {
			return fmt.Errorf("adding %v to ipset %s: %w", change.Member.Prefix, change.Set, err)
		}
	}
	return nil
}

// Delete takes elements out. One that isn't there is no error.
func (k *Kernel) Delete(changes []Change) error {
	for _, change := range changes {
		if err := k.handle.IpsetDel(change.Set, entryOf(&change)); err != nil {
			return fmt.Errorf("deleting %v from ipset %s: %w", change.Member.Prefix, change.Set, err)
		}
	}
	return nil
}

// Shrink does the half of the plan that comes after the rules changed. It
// returns the names of the sets that are still in use: with nft a rule that was
// deleted holds on to its set for a moment. They go when the plan is next made
// from what the kernel holds.
func (k *Kernel) Shrink(plan *Plan) (busy []string, err error) {
	if err := k.Delete(plan.Delete); err != nil {
		return nil, err
	}
	for _, name := range plan.Destroy {
		err := k.handle.IpsetDestroy(name)
		switch {
		case errors.Is(err, nl.IPSetError(nl.IPSET_ERR_BUSY)):
			busy = append(busy, name)
		case err != nil && !errors.Is(err, unix.ENOENT):
			return busy, fmt.Errorf("destroying ipset %s: %w", name, err)
		}
	}
	return busy, nil
}

// IsPermission reports whether the kernel refused for lack of CAP_NET_ADMIN.
func IsPermission(err error) bool { return errors.Is(err, unix.EPERM) }

func familyOf(family uint8) ruleset.Family {
	if family == unix.AF_INET6 {
		return ruleset.IPv6
	}
	return ruleset.IPv4
}

func memberOf(entry *netlink.IPSetEntry) (ruleset.Member, bool) {
	addr, ok := netip.AddrFromSlice(entry.IP)
	if !ok {
		return ruleset.Member{}, false
	}
	addr = addr.Unmap()
	bits := int(entry.CIDR)
	if bits == 0 {
		bits = addr.BitLen()
	}
	member := ruleset.Member{Prefix: netip.PrefixFrom(addr, bits)}
	if entry.Protocol != nil && entry.Port != nil {
		member.Protocol, member.Port = *entry.Protocol, *entry.Port
	}
	return member, true
}

// entryOf makes adding and deleting idempotent (Replace). The protocol of a port
// is always given: the library's default is TCP.
func entryOf(change *Change) *netlink.IPSetEntry {
	member := change.Member
	entry := &netlink.IPSetEntry{IP: member.Prefix.Addr().AsSlice(), Replace: true}
	switch change.Type {
	case ruleset.HashNet:
		entry.CIDR = uint8(member.Prefix.Bits())
	case ruleset.HashIPPort:
		entry.Protocol, entry.Port = &member.Protocol, &member.Port
	}
	return entry
}
