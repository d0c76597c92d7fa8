package ipset

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/nfnetlink"
	"github.com/moat-dev/moat/dataplane/kernel/nlattr"
)

// listHeaders asks for sets without their elements: IPSET_FLAG_LIST_HEADER
// (linux/netfilter/ipset/ip_set.h).
const listHeaders = 1 << 2

// Sizes returns how many elements each set has. The kernel answers with a message for
// each set, however many elements there are.
func (k *Kernel) Sizes() (map[string]int, error) {
	k.count()
	var attributes []byte
	nlattr.Append(&attributes, nl.IPSET_ATTR_PROTOCOL, nl.IPSET_PROTOCOL)
	nlattr.Append(&attributes, nl.IPSET_ATTR_FLAGS|unix.NLA_F_NET_BYTEORDER, 0, 0, 0, listHeaders)
	sets := map[string]*listed{}
	request := nfnetlink.Request{Subsystem: unix.NFNL_SUBSYS_IPSET, Command: nl.IPSET_CMD_LIST, Dump: true, Attributes: attributes}
	if err := k.headers.Ask(request, func(r nfnetlink.Reply) { addSet(sets, k.prefix, r.Attributes) }); err != nil {
		return nil, fmt.Errorf("listing the sizes of ipsets: %w", err)
	}
	sizes := make(map[string]int, len(sets))
	for name, set := range sets {
		sizes[name] = int(set.elements)
	}
	return sizes, nil
}
