//go:build linux

package machine

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/hack/cluster/files"
	"github.com/moat-dev/moat/hack/cluster/progress"
)

// bridgeName is a bridge in the control plane's namespace: the wire between the machines.
const bridgeName = "moat0"

// LinkName is each machine's end of that wire.
const LinkName = "eth0"

// makeNetwork makes the machines' namespaces and the links between them.
func makeNetwork(o Options, machines []Machine) error {
	loadBridgeFilter()
	for _, m := range machines {
		if err := m.makeNetns(); err != nil {
			return err
		}
	}
	if err := ControlPlane().InNetns(func() error { return makeBridge(o.IPFamily) }); err != nil {
		return err
	}
	for _, m := range machines {
		if m.Name == ControlPlaneName {
			continue
		}
		if err := ControlPlane().InNetns(func() error { return plugIn(m) }); err != nil {
			return err
		}
	}
	return progress.InParallel(machines, func(m Machine) error {
		return m.InNetns(func() error { return m.configureNetwork(o) })
	})
}

// loadBridgeFilter loads the module that lets bridged packets pass iptables,
// where it is a module. Its setting is left as the kernel starts it.
func loadBridgeFilter() {
	if files.Exists("/proc/sys/net/bridge") {
		return
	}
	if out, err := exec.Command("modprobe", "br_netfilter").CombinedOutput(); err != nil {
		progress.Say("can't load br_netfilter, policies won't hold between pods of one node: %v: %s", err, out)
	}
}

func makeBridge(family IPFamily) error {
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}, MulticastSnooping: &snooping}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("adding bridge %s: %w", bridgeName, err)
	}
	return configureLink(bridgeName, ControlPlane().Addresses(family))
}

// plugIn links the machine's namespace to the bridge of the current one.
func plugIn(m Machine) error {
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("finding bridge %s: %w", bridgeName, err)
	}
	handle, err := netns.GetFromName(m.netns())
	if err != nil {
		return fmt.Errorf("opening network namespace %s: %w", m.netns(), err)
	}
	defer func() { _ = handle.Close() }()
	port := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: m.Name, MasterIndex: bridge.Attrs().Index},
		PeerName:      LinkName,
		PeerNamespace: netlink.NsFd(handle),
	}
	if err := netlink.LinkAdd(port); err != nil {
		return fmt.Errorf("linking %s to the bridge: %w", m.Name, err)
	}
	if err := netlink.LinkSetUp(port); err != nil {
		return fmt.Errorf("setting the link of %s up: %w", m.Name, err)
	}
	return nil
}

// configureNetwork sets addresses, routes and forwarding in the current
// namespace, which is the machine's.
func (m Machine) configureNetwork(o Options) error {
	if err := configureLink("lo", nil); err != nil {
		return err
	}
	switch {
	case m.isNode():
		if err := forward(o.IPFamily); err != nil {
			return err
		}
		if err := configureLink(LinkName, m.Addresses(o.IPFamily)); err != nil {
			return err
		}
		return errors.Join(routesToWorld(o.IPFamily), routesToServices(o.IPFamily))
	case m.Name == WorldName:
		if err := configureLink(LinkName, append(m.Addresses(o.IPFamily), families(o.IPFamily, worldAddresses...)...)); err != nil {
			return err
		}
	}
	// Packets to a pod go to its node as they are, so that pods see the real source.
	return RoutesToPods(Nodes(o.Nodes), o.IPFamily)
}

func configureLink(name string, addresses []netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding link %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("setting link %s up: %w", name, err)
	}
	for _, address := range addresses {
		// No duplicate address detection: it would hold IPv6 back for a second.
		addr := &netlink.Addr{IPNet: ipNet(address), Flags: unix.IFA_F_NODAD}
		if address.Addr().Is4() {
			addr.Flags = 0
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("adding address %s to %s: %w", address, name, err)
		}
	}
	return nil
}

func forward(family IPFamily) error {
	settings := []string{"ipv4/ip_forward"}
	if family == FamilyDual {
		settings = append(settings, "ipv6/conf/all/forwarding")
	}
	for _, setting := range settings {
		if err := os.WriteFile(filepath.Join("/proc/sys/net", setting), []byte("1"), 0o644); err != nil {
			return fmt.Errorf("turning forwarding on: %w", err)
		}
	}
	return nil
}

func routesToWorld(family IPFamily) error {
	for _, address := range families(family, worldAddresses...) {
		network := address.Masked()
		if network.IsSingleIP() {
			continue
		}
		if err := addRoute(network, theWorld().address(network.Addr())); err != nil {
			return err
		}
	}
	return nil
}

// routesToServices lets a node's own programs, and so its hostNetwork pods, use
// Services. kube-proxy rewrites the destination of what the node sends only after
// the route was looked up: without a default route, which a node here doesn't
// have, there would be none.
func routesToServices(family IPFamily) error {
	for _, cidr := range ServiceCIDRs(family) {
		if err := addRoute(cidr, ControlPlane().address(cidr.Addr())); err != nil {
			return err
		}
	}
	return nil
}

// RoutesToPods adds a route to each node's pods by way of that node.
func RoutesToPods(targets []Machine, family IPFamily) error {
	for _, target := range targets {
		for _, cidr := range target.PodCIDRs(family) {
			if err := addRoute(cidr, target.address(cidr.Addr())); err != nil {
				return err
			}
		}
	}
	return nil
}

func addRoute(to netip.Prefix, via netip.Addr) error {
	route := &netlink.Route{Dst: ipNet(to), Gw: via.AsSlice()}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("adding a route to %s via %s: %w", to, via, err)
	}
	return nil
}

// ipNet converts to what the netlink library takes.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// RemoveLink removes a link of the current namespace, if it is there.
func RemoveLink(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("finding link %s: %w", name, err)
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("removing link %s: %w", name, err)
	}
	return nil
}
