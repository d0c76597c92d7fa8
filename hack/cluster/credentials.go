//go:build linux

package main

import (
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"net/netip"
)

// client is somebody who talks to the API server, with a kubeconfig of its own.
type client struct {
	user, group string
	kubeconfig  string
}

func clients(nodes []machine) []client {
	list := []client{
		{"admin", "system:masters", adminKubeconfig},
		{"system:kube-controller-manager", "", kubeconfig(theControlPlane(), "kube-controller-manager")},
		{"system:kube-scheduler", "", kubeconfig(theControlPlane(), "kube-scheduler")},
	}
	for _, n := range nodes {
		list = append(list,
			client{"system:node:" + n.name, "system:nodes", kubeconfig(n, "kubelet")},
			client{"system:kube-proxy", "", kubeconfig(n, "kube-proxy")},
			client{"flannel", "", kubeconfig(n, "flanneld")})
	}
	return list
}

// kubeconfig is the file for a process of the machine.
func kubeconfig(m machine, process string) string { return m.path("config", process+".kubeconfig") }

// makeCredentials makes every key, certificate and kubeconfig of the cluster.
func makeCredentials(o options) error {
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
	for _, c := range clients(nodes(o.Nodes)) {
		if err := ca.makeKubeconfig(c); err != nil {
			return err
		}
	}
	return nil
}

func (ca *authority) makeServers(o options) error {
	addresses := append(addrs(theControlPlane().addresses(o.IPFamily)), netip.MustParseAddr("127.0.0.1"))
	for _, cidr := range serviceCIDRs(o.IPFamily) {
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
	for _, n := range nodes(o.Nodes) {
		name := pkix.Name{CommonName: "system:node:" + n.name, Organization: []string{"system:nodes"}}
		if err := ca.issueTo(n.name, name, []string{n.name}, addrs(n.addresses(o.IPFamily))); err != nil {
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
	return fmt.Sprintf("https://%s:%d", theControlPlane().addresses(familyIPv4)[0].Addr(), apiServerPort)
}
