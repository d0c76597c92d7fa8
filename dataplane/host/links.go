package host

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel/nfnetlink"
	"github.com/moat-dev/moat/dataplane/policy"
)

// outside are addresses that no host has (RFC 5737, RFC 3849): the route to them
// is the one to the rest of the world.
var outside = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}

// plainName is an interface's name that means the same to every program. The kernel
// allows nearly everything, iptables reads "+" at the end as "any".
var plainName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

var errName = errors.New("a rule can't hold that name")

// LinksOf returns the interfaces that lead to the endpoints, by the node's routes.
// A pod that the node has no direct route to is behind none. Neither is one behind
// the link that leads to the rest of the world: what the node itself does there,
// DHCPv6 for one, must not stop for the sake of a pod.
//
// With an error it returns the links that could be found.
func LinksOf(endpoints []policy.Endpoint) (compile.Links, error) {
	handle, err := OpenRoutes()
	if err != nil {
		return compile.Links{}, err
	}
	defer handle.Close()
	r := routes{handle: handle, names: map[int]string{}}
	var errs []error
	for _, addr := range outside {
		route, err := r.to(addr)
		errs = append(errs, err)
		if route != nil {
			r.names[route.LinkIndex] = ""
		}
	}
	var links compile.Links
	for i := range endpoints {
		for _, addr := range endpoints[i].Pod.Addrs {
			name, err := r.link(addr)
			errs = append(errs, err)
			for d := range policy.Direction(policy.Directions) {
				if name != "" && endpoints[i].Restricted(d) {
					links[d] = append(links[d], name)
				}
			}
		}
	}
	return JoinLinks(links, compile.Links{}), errors.Join(errs...)
}

// JoinLinks returns what is in either.
func JoinLinks(a, b compile.Links) compile.Links {
	var joined compile.Links
	for d := range joined {
		joined[d] = slices.Concat(a[d], b[d])
		slices.Sort(joined[d])
		joined[d] = slices.Compact(joined[d])
	}
	return joined
}

// OpenRoutes makes a socket for questions about links, addresses and routes, in the network
// namespace of the calling thread. Without a limit of its own it would wait without end for an
// answer that doesn't come.
func OpenRoutes() (*netlink.Handle, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err == nil {
		err = handle.SetSocketTimeout(nfnetlink.AnswerWithin)
	}
	if err != nil {
		return nil, fmt.Errorf("opening a route netlink socket: %w", err)
	}
	return handle, nil
}

// routes asks the kernel for routes.
type routes struct {
	handle *netlink.Handle
	names  map[int]string // of the links that were asked for; empty: not one of pods
}

// link returns the name of the interface that leads to an address, empty for none.
func (r *routes) link(addr netip.Addr) (string, error) {
	route, err := r.to(addr)
	if err != nil || route == nil || route.Gw != nil || route.Via != nil || route.Type != unix.RTN_UNICAST {
		return "", err
	}
	if name, known := r.names[route.LinkIndex]; known {
		return name, nil
	}
	link, err := r.handle.LinkByIndex(route.LinkIndex)
	if err != nil {
		return "", fmt.Errorf("finding the link to %s: %w", addr, err)
	}
	name := link.Attrs().Name
	if !plainName.MatchString(name) {
		return "", fmt.Errorf("filtering by the interface %q, which leads to %s: %w", name, addr, errName)
	}
	r.names[route.LinkIndex] = name
	return name, nil
}

// to returns the route to an address, nil where there is none.
func (r *routes) to(addr netip.Addr) (*netlink.Route, error) {
	found, err := r.handle.RouteGet(addr.AsSlice())
	if Unroutable(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking up the route to %s: %w", addr, err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return &found[0], nil
}

// Unroutable reports whether the kernel has no route, or one that says that there
// is none: unreachable, prohibit, blackhole.
func Unroutable(err error) bool {
	for _, errno := range []unix.Errno{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
