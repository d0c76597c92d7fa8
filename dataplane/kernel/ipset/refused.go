package ipset

import (
	"errors"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// mostRefused bounds the elements of one set that are left out in one go. Where the
// kernel refuses more, the fault isn't the elements', and to try them one by one would
// take too long.
const mostRefused = 64

// Kernel errors about one element (linux/netfilter/ipset/ip_set_hash.h). The first, that
// the set is full, is about the set.
const (
	errHashElem  = nl.IPSET_ERR_TYPE_SPECIFIC + 1 // IPSET_ERR_HASH_ELEM: 0.0.0.0 for one
	errHashRange = nl.IPSET_ERR_TYPE_SPECIFIC + 5 // IPSET_ERR_HASH_RANGE
)

// refuses reports whether the kernel's answer may be about one element of a message. The
// IPv6 types answer EINVAL to an element that they don't take (hash_ip6_uadt).
func refuses(err error) bool {
	var private nl.IPSetError
	if errors.As(err, &private) {
		element := []int{nl.IPSET_ERR_INVALID_CIDR, nl.IPSET_ERR_INVALID_NETMASK, nl.IPSET_ERR_INVALID_FAMILY, nl.IPSET_ERR_IPADDR_IPV4, nl.IPSET_ERR_IPADDR_IPV6}
		return int(private) >= errHashElem && int(private) <= errHashRange || slices.Contains(element, int(private))
	}
	var errno syscall.Errno
	return errors.As(err, &errno) && (errno == unix.EINVAL || errno == unix.ERANGE)
}

// sendWithout sends changes of one set in batches. Elements that the kernel refuses are
// left out and told to OnRefused, so that the others of their batch arrive. After another
// error it returns the batch that failed and those that didn't follow.
func (k *Kernel) sendWithout(command int, changes []Change) ([]Change, error) {
	for left := mostRefused; ; left-- {
		rest, err := k.sendAll(command, changes)
		if err == nil || !refuses(err) || left == 0 {
			return rest, err
		}
		_, batch := encodeElements(rest)
		suspect, err := k.findRefused(command, rest[:batch])
		switch {
		case err != nil && !refuses(err):
			return rest, err
		case err != nil && k.OnRefused != nil:
			k.OnRefused(rest[suspect], err)
		}
		changes = rest[suspect+1:] // those before it have arrived
	}
}

// findRefused returns the first element of a refused batch that the kernel doesn't take,
// and what it says of that one alone. The kernel stops at such an element, so it is found
// by halves, and all before it arrive.
func (k *Kernel) findRefused(command int, batch []Change) (int, error) {
	send := func(changes []Change) error {
		elements, _ := encodeElements(changes)
		return k.send(command, batch[0].Set, elements)
	}
	first, end := 0, len(batch)
	for end-first > 1 {
		middle := first + (end-first)/2
		switch err := send(batch[first:middle]); {
		case err == nil:
			first = middle
		case refuses(err):
			end = middle
		default:
			return first, err
		}
	}
	return first, send(batch[first:end])
}
