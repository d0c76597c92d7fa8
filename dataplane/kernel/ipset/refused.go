package ipset

import (
	"errors"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// mostRefused bounds the elements of one set that are left out in one call. Where the
// kernel refuses more, the elements aren't at fault, and to try them one by one would
// take too long.
const mostRefused = 64

// Kernel errors about one element (linux/netfilter/ipset/ip_set_hash.h). The first error of that
// file isn't among them: it says that the set is full.
const (
	errHashElem  = nl.IPSET_ERR_TYPE_SPECIFIC + 1 // IPSET_ERR_HASH_ELEM: 0.0.0.0 for one
	errHashRange = nl.IPSET_ERR_TYPE_SPECIFIC + 5 // IPSET_ERR_HASH_RANGE
)

// refuses reports whether the kernel's answer may be about one element of a message. The
// IPv6 types answer EINVAL to an element that they refuse (hash_ip6_uadt).
func refuses(err error) bool {
	var private nl.IPSetError
	if errors.As(err, &private) {
		element := []int{nl.IPSET_ERR_INVALID_CIDR, nl.IPSET_ERR_INVALID_NETMASK, nl.IPSET_ERR_INVALID_FAMILY, nl.IPSET_ERR_IPADDR_IPV4, nl.IPSET_ERR_IPADDR_IPV6}
		return int(private) >= errHashElem && int(private) <= errHashRange || slices.Contains(element, int(private))
	}
	var errno syscall.Errno
	return errors.As(err, &errno) && (errno == unix.EINVAL || errno == unix.ERANGE)
}

// sendWithout sends changes of one set in batches. It leaves out elements that the kernel
// refuses, so that all other elements of their batch arrive, and calls OnRefused with them. After
// another error it returns the changes from the batch that failed on.
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

// findRefused returns the first element of a refused batch that the kernel refuses alone, and the
// kernel's error. The kernel stops at such an element. So it is found by halving the batch, and all
// elements before it arrive.
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
