package ipset

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/nfnetlink"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Kernel is the ipset part of one network namespace. It isn't safe for use by
// several goroutines at once.
type Kernel struct {
	// Capacity is how many elements a new set may hold before it has to grow.
	Capacity uint32

	// OnRequest, if not nil, is called with every request to the kernel.
	OnRequest func()

	// OnRefused, if not nil, is called with each element that the kernel refuses, and with the
	// reason. Such an element is no error: the other elements are in.
	OnRefused func(Change, error)

	// Creating, if not nil, is called before a set is made. Its error counts as the kernel's.
	// Tests play a full kernel with it: to fill one takes a minute.
	Creating func() error

	handle  *netlink.Handle
	sockets map[int]*nl.SocketHandle // for requests that the handle makes slowly or not at all
	headers *nfnetlink.Socket
	changes *nfnetlink.Socket
	prefix  string
}

// Open connects to the network namespace of the calling thread. Only sets whose
// name begins with prefix are ever read or changed.
func Open(prefix string) (*Kernel, error) {
	k := &Kernel{Capacity: defaultCapacity, prefix: prefix}
	if err := k.open(); err != nil {
		k.Close()
		return nil, fmt.Errorf("opening a netfilter netlink socket: %w", err)
	}
	return k, nil
}

func (k *Kernel) open() (err error) {
	if k.handle, err = netlink.NewHandle(unix.NETLINK_NETFILTER); err != nil {
		return err
	}
	if err := k.handle.SetSocketTimeout(nfnetlink.AnswerWithin); err != nil {
		return err
	}
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	k.sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: socket}}
	within := unix.NsecToTimeval(nfnetlink.AnswerWithin.Nanoseconds())
	if err := errors.Join(socket.SetSendTimeout(&within), socket.SetReceiveTimeout(&within)); err != nil {
		return err
	}
	if k.headers, err = nfnetlink.Open(nfnetlink.Short); err != nil {
		return err
	}
	k.changes, err = nfnetlink.Open(nfnetlink.Long)
	return err
}

// Close closes the connection, also one that was opened in part.
func (k *Kernel) Close() {
	if k.handle != nil {
		k.handle.Close()
	}
	for _, socket := range k.sockets {
		socket.Close()
	}
	for _, socket := range []*nfnetlink.Socket{k.headers, k.changes} {
		if socket != nil {
			socket.Close()
		}
	}
}

// request begins a message to the kernel.
func (k *Kernel) request(command int) *nl.NetlinkRequest {
	k.count()
	req := nl.NewNetlinkRequest(command|unix.NFNL_SUBSYS_IPSET<<8, nl.GetIpsetFlags(command))
	req.Sockets = k.sockets
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_NETLINK, Version: nl.NFNETLINK_V0})
	req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_PROTOCOL, nl.Uint8Attr(nl.IPSET_PROTOCOL)))
	return req
}

func (k *Kernel) count() {
	if k.OnRequest != nil {
		k.OnRequest()
	}
}

func (k *Kernel) destroy(name string) error {
	k.count()
	return k.handle.IpsetDestroy(name)
}

// Grow does the half of the plan that comes before the rules change: it makes sets and adds
// elements. If a set can't be made, such as where the kernel has 65,535 already, the other sets
// still get their elements: the rules in force depend on them.
func (k *Kernel) Grow(plan *Plan) error {
	for _, name := range plan.Replace {
		if err := k.destroy(name); err != nil {
			return &unmadeError{fmt.Errorf("destroying ipset %s, which has the wrong type: %w", name, err)}
		}
	}
	for i := range plan.Create {
		if err := k.create(&plan.Create[i], k.Capacity); err != nil {
			return errors.Join(&unmadeError{err}, k.Add(withoutSets(plan.Add, plan.Create[i:])))
		}
	}
	return k.Add(plan.Add)
}

// withoutSets leaves out the changes of some sets.
func withoutSets(changes []Change, sets []ruleset.Set) []Change {
	names := make(map[string]bool, len(sets))
	for i := range sets {
		names[sets[i].Name] = true
	}
	return slices.DeleteFunc(slices.Clone(changes), func(c Change) bool { return names[c.Set] })
}

// Add adds elements. An element that is there already is no error, nor is one that the kernel
// refuses: see OnRefused. After an error in one set, the other sets still get their elements.
func (k *Kernel) Add(changes []Change) error {
	var errs []error
	for _, inSet := range inSets(changes) {
		errs = append(errs, k.addToSet(inSet))
	}
	return errors.Join(errs...)
}

// Delete takes elements out. An element that isn't there is no error.
func (k *Kernel) Delete(changes []Change) error {
	var errs []error
	for _, inSet := range inSets(changes) {
		errs = append(errs, k.deleteFromSet(inSet))
	}
	return errors.Join(errs...)
}

// Shrink does the half of the plan that comes after the rules changed. It
// returns the names of the sets that are still in use: with nft, a deleted rule keeps
// its set busy for a moment. The next plan that is made from the kernel's sets destroys
// them.
func (k *Kernel) Shrink(plan *Plan) (busy []string, err error) {
	if err := k.Delete(plan.Delete); err != nil {
		return nil, err
	}
	for _, name := range plan.Destroy {
		err := k.destroy(name)
		switch {
		case errors.Is(err, errBusy):
			busy = append(busy, name)
		case err != nil && !errors.Is(err, unix.ENOENT):
			return busy, fmt.Errorf("destroying ipset %s: %w", name, err)
		}
	}
	return busy, nil
}

// errBusy is the kernel's answer to an attempt to destroy a set that is in use.
const errBusy = nl.IPSetError(nl.IPSET_ERR_BUSY)

// IsPermission reports whether the kernel refused for lack of CAP_NET_ADMIN.
func IsPermission(err error) bool { return errors.Is(err, unix.EPERM) }
