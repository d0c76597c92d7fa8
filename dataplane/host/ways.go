package host

import (
	"errors"
	"maps"
	"net/netip"
)

// Ways are the interfaces by which the node reaches its own pods, isolated or not.
type Ways struct {
	// Known maps each address to the name of its interface; empty: no rule can name one.
	Known map[netip.Addr]string
}

// Forget makes the next follow look up every address.
func (w *Ways) Forget() { w.Known = nil }

// Follow looks up the addresses that are new and drops those that have gone. An address
// that can't be looked up is left out. Each change makes a new map.
func (w *Ways) Follow(local []netip.Addr) error {
	known := make(map[netip.Addr]string, len(local))
	var fresh []netip.Addr
	for _, addr := range local {
		if name, ok := w.Known[addr]; ok {
			known[addr] = name
		} else {
			fresh = append(fresh, addr)
		}
	}
	err := lookUp(fresh, known)
	if !maps.Equal(known, w.Known) {
		w.Known = known
	}
	return err
}

// lookUp adds the interfaces of addresses.
func lookUp(addrs []netip.Addr, known map[netip.Addr]string) error {
	if len(addrs) == 0 {
		return nil
	}
	handle, err := OpenRoutes()
	if err != nil {
		return err
	}
	defer handle.Close()
	r := routes{handle: handle, names: map[int]string{}}
	var errs []error
	for _, addr := range addrs {
		name, err := r.link(addr)
		if errors.Is(err, errName) {
			err = nil // linksOf says so where it matters
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		known[addr] = name
	}
	return errors.Join(errs...)
}
