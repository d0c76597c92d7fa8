package nodetest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The tunnel of AddOverlay, with Flannel's names and numbers.
const (
	OverlayName = "flannel.1"
	OverlayVNI  = 1
	OverlayPort = 8472
)

// OverlayAddr is the address of a node on the overlay, by its number.
func OverlayAddr(number int) netip.Addr { return netip.AddrFrom4([4]byte{10, 200, 0, byte(number)}) }

// AddOverlay lays a VXLAN over the underlay, by which the nodes reach each other's
// OverlayAddr. Pods stay routed by the underlay.
func (w *Network) AddOverlay(t testing.TB) {
	t.Helper()
	for i, node := range w.Nodes {
		require.NoError(t, node.Do(func() error {
			link := &netlink.Vxlan{
				LinkAttrs: netlink.LinkAttrs{Name: OverlayName, HardwareAddr: overlayMAC(i + 1)},
				VxlanId:   OverlayVNI, Port: OverlayPort, SrcAddr: net.IP(UnderlayAddrs(i + 1)[0].AsSlice()), Learning: false,
			}
			if err := netlink.LinkAdd(link); err != nil {
				return fmt.Errorf("adding a VXLAN: %w", err)
			}
			errs := []error{linkUp(OverlayName), addAddr(OverlayName, OverlayAddr(i+1), 24)}
			for j := range w.Nodes {
				if j != i {
					errs = append(errs, addOverlayPeer(link.Index, j+1))
				}
			}
			return errors.Join(errs...)
		}))
	}
}

// overlayMAC is the link-layer address of a node on the overlay.
func overlayMAC(number int) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, byte(number)} }

// addOverlayPeer says where another node is, as flanneld does.
func addOverlayPeer(index, number int) error {
	return errors.Join(
		netlink.NeighSet(&netlink.Neigh{
			LinkIndex: index, Family: unix.AF_BRIDGE, State: unix.NUD_PERMANENT, Flags: unix.NTF_SELF,
			IP: UnderlayAddrs(number)[0].AsSlice(), HardwareAddr: overlayMAC(number),
		}),
		netlink.NeighSet(&netlink.Neigh{
			LinkIndex: index, State: unix.NUD_PERMANENT, IP: OverlayAddr(number).AsSlice(), HardwareAddr: overlayMAC(number),
		}),
	)
}
