package host

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/podstart"
)

// netNSDirs are the folders in which runtimes keep the files of network namespaces. They are
// one folder, of which agents see the first name.
const (
	netNSDir   = "/run/netns"
	runtimeDir = "/var/run/netns"
)

var errElsewhere = errors.New("not in " + netNSDir)

// OpenNetNS opens the file of a network namespace, as the runtime names it. Another folder
// would be the agent's own, not the node's: /proc shows the agent's own processes.
func OpenNetNS(path string) (*os.File, error) {
	if dir := filepath.Dir(path); dir != netNSDir && dir != runtimeDir {
		return nil, fmt.Errorf("opening the network namespace %q: %w", path, errElsewhere)
	}
	return os.Open(filepath.Join(netNSDir, filepath.Base(path)))
}

// listMost is how often the interfaces are listed again while they change.
const listMost = 3

// PodLinks says by which link the node reaches each sandbox.
type PodLinks struct {
	Open func(path string) (*os.File, error)

	// indexes are those of the links that were found, by the ids of sandboxes.
	indexes map[string]int

	// asked are the sandboxes of the last answer, in which each has its link; nil where not
	// all had one. found is that answer.
	asked []podstart.Sandbox
	found map[string]compile.PodLink
}

// Forget has the next Follow ask the kernel, also about sandboxes that had their links.
func (p *PodLinks) Forget() { p.asked = nil }

// Follow returns the link of each sandbox that has exactly one, by the ids of sandboxes. The
// runtime says which network namespace is a sandbox's, and the kernel to which one a link
// leads: nothing that a pod sends has a say. Of two links it isn't known which addresses are
// whose. With an error it returns what it can. While the sandboxes stay the same, and each had
// its link, it asks nothing: a policy's change isn't slower for it.
func (p *PodLinks) Follow(sandboxes []podstart.Sandbox) (map[string]compile.PodLink, error) {
	if p.asked != nil && slices.EqualFunc(p.asked, sandboxes, sameSandbox) {
		return maps.Clone(p.found), nil
	}
	p.asked = nil
	handle, err := OpenRoutes()
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	all, err := listLinks(handle)
	if err != nil {
		return nil, err
	}
	uplinks, err := uplinksTo(handle)
	links := newNodeLinks(all, uplinks)
	indexes, found := map[string]int{}, map[string]compile.PodLink{}
	for i := range sandboxes {
		s := &sandboxes[i]
		index, known := p.indexes[s.ID]
		if !known {
			index = links.leadingTo(p.namespace(handle, s.NetNS))
		}
		link, usable := links.podLink(index)
		if !usable {
			continue
		}
		link.Addrs = s.Addrs
		indexes[s.ID], found[s.ID] = index, link
	}
	p.indexes = indexes
	if err == nil && len(found) == len(sandboxes) {
		p.asked, p.found = append([]podstart.Sandbox{}, sandboxes...), maps.Clone(found)
	}
	return found, err
}

func sameSandbox(a, b podstart.Sandbox) bool {
	return a.ID == b.ID && a.NetNS == b.NetNS && slices.Equal(a.Addrs, b.Addrs)
}

// namespace returns the number that the node's network namespace has for another, negative
// where that isn't known.
func (p *PodLinks) namespace(handle *netlink.Handle, path string) int {
	file, err := p.Open(path)
	if err != nil {
		return -1
	}
	defer func() { _ = file.Close() }()
	id, err := handle.GetNetNsIdByFd(int(file.Fd()))
	if err != nil {
		return -1
	}
	return id
}

// listLinks lists the node's interfaces. The kernel numbers the namespaces that they lead to
// meanwhile, if it hasn't before.
func listLinks(handle *netlink.Handle) ([]netlink.Link, error) {
	var links []netlink.Link
	var err error
	for range listMost {
		if links, err = handle.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listing the node's interfaces: %w", err)
	}
	return links, nil
}

// uplinksTo returns the indexes of the links to the rest of the world.
func uplinksTo(handle *netlink.Handle) ([]int, error) {
	r := routes{handle: handle}
	var uplinks []int
	var errs []error
	for _, addr := range outside {
		route, err := r.to(addr)
		errs = append(errs, err)
		if route != nil {
			uplinks = append(uplinks, route.LinkIndex)
		}
	}
	return uplinks, errors.Join(errs...)
}

// nodeLinks are the node's interfaces.
type nodeLinks struct {
	byIndex map[int]netlink.Link
	leading map[int][]int // indexes, by the number of the namespace that they lead to
	uplinks []int
}

func newNodeLinks(links []netlink.Link, uplinks []int) nodeLinks {
	n := nodeLinks{byIndex: map[int]netlink.Link{}, leading: map[int][]int{}, uplinks: uplinks}
	for _, link := range links {
		attrs := link.Attrs()
		n.byIndex[attrs.Index] = link
		if attrs.NetNsID >= 0 {
			n.leading[attrs.NetNsID] = append(n.leading[attrs.NetNsID], attrs.Index)
		}
	}
	return n
}

// leadingTo returns the index of the one link that leads to a namespace, 0 for none.
func (n *nodeLinks) leadingTo(namespace int) int {
	if indexes := n.leading[namespace]; namespace >= 0 && len(indexes) == 1 {
		return indexes[0]
	}
	return 0
}

// podLink returns a link by which rules can tell a pod's packets. They can't where a name is
// none that a rule can hold, or where the link belongs to anything but a bridge: packets
// then seem to come by that. A bridge that is the node's uplink also has the packets of
// everybody else.
func (n *nodeLinks) podLink(index int) (compile.PodLink, bool) {
	link := n.byIndex[index]
	if link == nil || !plainName.MatchString(link.Attrs().Name) {
		return compile.PodLink{}, false
	}
	found := compile.PodLink{Name: link.Attrs().Name}
	master := link.Attrs().MasterIndex
	if master == 0 {
		return found, true
	}
	bridge := n.byIndex[master]
	if bridge == nil || bridge.Type() != "bridge" || !plainName.MatchString(bridge.Attrs().Name) || slices.Contains(n.uplinks, master) {
		return compile.PodLink{}, false
	}
	found.Bridge = bridge.Attrs().Name
	return found, true
}
