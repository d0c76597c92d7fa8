package selector

import (
	"net/netip"
	"slices"
)

// owners says which owners show an address. Nearly always there is one, so only further owners
// are kept in lists.
type owners[T comparable] struct {
	first map[netip.Addr]T
	more  map[netip.Addr][]T // in the order in which they came
}

func newOwners[T comparable]() owners[T] {
	return owners[T]{first: map[netip.Addr]T{}, more: map[netip.Addr][]T{}}
}

func (o *owners[T]) add(addr netip.Addr, owner T) {
	if _, taken := o.first[addr]; taken {
		o.more[addr] = append(o.more[addr], owner)
		return
	}
	o.first[addr] = owner
}

// remove takes an owner out that shows the address.
func (o *owners[T]) remove(addr netip.Addr, owner T) {
	rest := o.more[addr]
	switch {
	case o.first[addr] != owner:
		rest = slices.DeleteFunc(rest, func(other T) bool { return other == owner })
	case len(rest) == 0:
		delete(o.first, addr)
	default:
		o.first[addr] = rest[0]
		rest = slices.Delete(rest, 0, 1)
	}
	if len(rest) > 0 {
		o.more[addr] = rest
	} else {
		delete(o.more, addr)
	}
}

// shared reports whether several owners show the address.
func (o *owners[T]) shared(addr netip.Addr) bool { return len(o.more[addr]) > 0 }

// has reports whether an owner shows the address.
func (o *owners[T]) has(addr netip.Addr) bool {
	_, is := o.first[addr]
	return is
}

// all returns the owners that show the address, in the order in which they came.
func (o *owners[T]) all(addr netip.Addr) []T {
	first, taken := o.first[addr]
	if !taken {
		return nil
	}
	return append([]T{first}, o.more[addr]...)
}

// find returns the first owner that accept accepts, or the zero value.
func (o *owners[T]) find(addr netip.Addr, accept func(T) bool) T {
	var none T
	first, taken := o.first[addr]
	if !taken || accept(first) {
		return first
	}
	for _, other := range o.more[addr] {
		if accept(other) {
			return other
		}
	}
	return none
}
