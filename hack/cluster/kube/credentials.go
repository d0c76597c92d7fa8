//go:build linux

package kube

import (
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"net/netip"

	"github.com/moat-dev/moat/hack/cluster/machine"
)

// client is somebody who talks to the API server, with a kubeconfig of its own.
type client struct {
	user, group string
	kubeconfig  string
}

func clients(nodes []machine.Machine) []client {
	list := []client{
		{"admin", "system:masters", AdminKubeconfig},
		{"system:kube-controller-manager", "", kubeconfig(machine.ControlPlane(), "kube-controller-manager")},
		{"system:kube-scheduler", "", kubeconfig(machine.ControlPlane(), "kube-scheduler")},
	}
	for _, n := range nodes {
		list = append(list,
			client{"system:node:" + n.Name, "system:nodes", kubeconfig(n, "kubelet")},
			client{"system:kube-proxy", "", kubeconfig(n, "kube-proxy")},
			client{"flannel", "", kubeconfig(n, "flanneld")})
	}
	return list
}

// kubeconfig is the file for a process of the machine.
func kubeconfig(m machine.Machine, process string) string {
	return m.Path("config", process+".kubeconfig")
}

// makeCredentials makes every key, certificate and kubeconfig of the cluster.
func makeCredentials(o machine.Options) error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	if err := writeServiceAccountKey(); err != nil {
		return err
	}
	if err := ca.makeServers(o); err != nil {
		return err
	}
	for _, c := range clients(machine.Nodes(o.Nodes)) {
		if err := ca.makeKubeconfig(c); err != nil {
			return err
		}
	}
	return nil
}

func (ca *authority) makeServers(o machine.Options) error {
	addresses := append(addrs(machine.ControlPlane().Addresses(o.IPFamily)), netip.MustParseAddr("127.0.0.1"))
	for _, cidr := range machine.ServiceCIDRs(o.IPFamily) {
		addresses = append(addresses, cidr.Addr().Next()) // the Service "kubernetes"
	}
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	err := ca.issueTo("kube-apiserver", pkix.Name{CommonName: "kube-apiserver"}, names, addresses)
	if err != nil {
		return err
	}
	// What the API server shows to kubelets, for logs and exec.
	kubeletClient := pkix.Name{CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}}
	if err := ca.issueTo("kubelet-client", kubeletClient, nil, nil); err != nil {
		return err
	}
	for _, n := range machine.Nodes(o.Nodes) {
		name := pkix.Name{CommonName: "system:node:" + n.Name, Organization: []string{"system:nodes"}}
		if err := ca.issueTo(n.Name, name, []string{n.Name}, addrs(n.Addresses(o.IPFamily))); err != nil {
			return err
		}
	}
	return nil
}

func (ca *authority) issueTo(file string, name pkix.Name, names []string, addresses []netip.Addr) error {
	pair, err := ca.issue(name, names, addresses)
	if err != nil {
		return err
	}
	return pair.write(file)
}

func (ca *authority) makeKubeconfig(c client) error {
	name := pkix.Name{CommonName: c.user}
	if c.group != "" {
		name.Organization = []string{c.group}
	}
	pair, err := ca.issue(name, nil, nil)
	if err != nil {
		return err
	}
	return writeTemplate(c.kubeconfig, "kubeconfig.yaml", map[string]string{
		"Server":      apiServerURL(),
		"Authority":   base64.StdEncoding.EncodeToString(ca.pem),
		"User":        c.user,
		"Certificate": base64.StdEncoding.EncodeToString(pair.certificate),
		"Key":         base64.StdEncoding.EncodeToString(pair.key),
	})
}

func apiServerURL() string {
	return fmt.Sprintf("https://%s:%d", machine.ControlPlane().Addresses(machine.FamilyIPv4)[0].Addr(), apiServerPort)
}

// addrs are the addresses without their networks.
func addrs(prefixes []netip.Prefix) []netip.Addr {
	list := make([]netip.Addr, len(prefixes))
	for i, p := range prefixes {
		list[i] = p.Addr()
	}
	return list
}
