package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
)

// FilterBridged makes bridged packets pass the FORWARD chain: traffic between two
// pods of one node, where the network puts them on a bridge (Flannel's cni0),
// reaches iptables only so (kernel: Documentation/networking/ip-sysctl.rst,
// bridge-nf-call-iptables). It returns what is wrong, or nil. It doesn't wait for
// a bridge: the first pod may come before the next look.
func FilterBridged(sysctlDir string) error {
	var errs []error
	for _, name := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
		errs = append(errs, enableSysctl(filepath.Join(sysctlDir, "bridge", name)))
	}
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	// A node without bridge does without the switch.
	bridged, listErr := hasBridgePort()
	if listErr != nil {
		return fmt.Errorf("whether traffic between pods of this node is filtered can't be told: %w", errors.Join(listErr, err))
	}
	if !bridged {
		return nil
	}
	return fmt.Errorf("traffic between pods of this node is not filtered: "+
		"load the kernel module br_netfilter and set net.bridge.bridge-nf-call-iptables and -ip6tables to 1: %w", err)
}

// hasBridgePort reports whether any interface of the node is a port of a bridge.
func hasBridgePort() (bool, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return false, fmt.Errorf("listing the node's interfaces: %w", err)
	}
	bridges := map[int]bool{}
	for _, link := range links {
		bridges[link.Attrs().Index] = link.Type() == "bridge"
	}
	for _, link := range links {
		if bridges[link.Attrs().MasterIndex] {
			return true, nil
		}
	}
	return false, nil
}

// enableSysctl sets a switch to 1 unless it is already: where it is, a file
// system that can't be written does no harm.
func enableSysctl(path string) error {
	value, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(value)) == "1" {
		return nil
	}
	return os.WriteFile(path, []byte("1"), 0)
}
