package host

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// ipvsLinks are the dummy interfaces to which programs bind the addresses of Services
// that the kernel's IPVS serves, with who does so.
var ipvsLinks = []struct{ name, program string }{
	{"kube-ipvs0", "kube-proxy"},     // kubernetes: pkg/proxy/ipvs/proxier.go, defaultDummyDevice
	{"kube-dummy-if", "kube-router"}, // kube-router: pkg/controllers/proxy, KubeDummyIf
}

// ServesByIPVS returns an error that says who serves Services by IPVS on this node, or
// nil. The kernel takes what goes to such a Service in at INPUT and sends it on to the
// pod at OUTPUT, so that it passes no rule in FORWARD: the ingress rules of a pod of this
// node don't see it.
func ServesByIPVS() error {
	var errs []error
	for _, link := range ipvsLinks {
		_, err := netlink.LinkByName(link.name)
		switch {
		case errors.As(err, &netlink.LinkNotFoundError{}):
		case err != nil:
			errs = append(errs, fmt.Errorf("looking for the interface %s: %w", link.name, err))
		default:
			errs = append(errs, fmt.Errorf("the interface %s is there: what %s sends to a Service's pod on this node by IPVS isn't filtered. "+
				"Run kube-proxy in mode nftables or iptables, and remove what IPVS left: kube-proxy --cleanup, or restart the node", link.name, link.program))
		}
	}
	return errors.Join(errs...)
}
