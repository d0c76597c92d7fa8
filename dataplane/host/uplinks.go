package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// tunnels are the kinds of interfaces that lead to other machines, whatever their routes
// look like.
var tunnels = []string{"geneve", "gre", "gretap", "ip6tnl", "ipip", "sit", "vxlan", "wireguard"}

// UplinksOf returns the interfaces by which the node reaches pods of other nodes, sorted:
// by gateways alone, a tunnel, or the way to the rest of the world. An interface that leads
// directly to a pod of this node is none of them. With an error it returns none.
func UplinksOf(foreign, local []netip.Addr) ([]string, error) {
	if len(foreign) == 0 {
		return nil, nil
	}
	handle, err := OpenRoutes()
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	r := routes{handle: handle}
	world, worldErr := r.indexes(outside)
	pods, podsErr := r.indexes(local)
	ways, waysErr := r.indexes(foreign)
	if err := errors.Join(worldErr, podsErr, waysErr); err != nil {
		return nil, err
	}
	var names []string
	for index, direct := range ways {
		// The route to a pod that has gone may be the one to the rest of the world.
		if pods[index] {
			continue
		}
		link, err := handle.LinkByIndex(index)
		if err != nil {
			return nil, fmt.Errorf("finding the interface %d: %w", index, err)
		}
		_, toWorld := world[index]
		if direct && !toWorld && !slices.Contains(tunnels, link.Type()) {
			continue
		}
		if name := link.Attrs().Name; plainName.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// indexes returns the interfaces that lead to the addresses, each with whether one of its
// routes is a direct one, without a gateway. Addresses without a route to a neighbour lead
// nowhere.
func (r *routes) indexes(addrs []netip.Addr) (map[int]bool, error) {
	indexes := map[int]bool{}
	for _, addr := range addrs {
		route, err := r.to(addr)
		if err != nil {
			return nil, err
		}
		if route == nil || route.Type != unix.RTN_UNICAST {
			continue
		}
		indexes[route.LinkIndex] = indexes[route.LinkIndex] || route.Gw == nil && route.Via == nil
	}
	return indexes, nil
}
