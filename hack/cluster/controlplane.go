//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

const apiServerTimeout = 2 * time.Minute

// startAPI starts etcd and the API server; awaitAPI says when they serve.
func startAPI(r *record) error {
	cp := theControlPlane()
	err := cp.start(daemon{name: "etcd", path: r.Binaries["etcd"], args: []string{
		"--data-dir=" + cp.path("etcd"),
		// Nothing here has to survive a power cut.
		"--unsafe-no-fsync",
		"--listen-client-urls=http://127.0.0.1:2379",
		"--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380",
	}})
	if err != nil {
		return err
	}
	return cp.start(daemon{name: "kube-apiserver", path: r.Binaries["kube-apiserver"], args: apiServerArgs(r.Options)})
}

func apiServerArgs(o options) []string {
	addresses := theControlPlane().addresses(o.IPFamily)
	return []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address=" + addresses[0].Addr().String(),
		fmt.Sprintf("--secure-port=%d", apiServerPort),
		"--service-cluster-ip-range=" + joined(serviceCIDRs(o.IPFamily)),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--client-ca-file=" + certificateFile("ca"),
		"--tls-cert-file=" + certificateFile("kube-apiserver"),
		"--tls-private-key-file=" + keyFile("kube-apiserver"),
		"--kubelet-certificate-authority=" + certificateFile("ca"),
		"--kubelet-client-certificate=" + certificateFile("kubelet-client"),
		"--kubelet-client-key=" + keyFile("kubelet-client"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + filepath.Join(pkiDir, "service-account.pub"),
		"--service-account-signing-key-file=" + keyFile("service-account"),
	}
}

// awaitAPI waits until the API server says that it is ready.
func awaitAPI() error {
	client, err := apiClient()
	if err != nil {
		return err
	}
	return theControlPlane().await("kube-apiserver", "the API server", apiServerTimeout, func() (bool, error) {
		response, err := client.Get(apiServerURL() + "/readyz")
		if err != nil {
			return false, nil
		}
		defer func() { _ = response.Body.Close() }()
		return response.StatusCode == http.StatusOK, nil
	})
}

// apiClient dials from inside of the control plane's namespace.
func apiClient() (*http.Client, error) {
	ca, err := os.ReadFile(certificateFile("ca"))
	if err != nil {
		return nil, fmt.Errorf("reading the cluster's authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	dial := func(_ context.Context, network, address string) (conn net.Conn, err error) {
		enterErr := theControlPlane().inNetns(func() error {
			endpoint, parseErr := netip.ParseAddrPort(address)
			if parseErr != nil {
				return parseErr
			}
			// A TCP dial of an address makes its socket on this thread.
			conn, err = net.DialTCP(network, nil, net.TCPAddrFromAddrPort(endpoint))
			return nil
		})
		if enterErr != nil {
			return nil, enterErr
		}
		return conn, err
	}
	return &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: pool}},
	}, nil
}

// startControllers starts what needs the API server.
func startControllers(r *record) error {
	cp, o := theControlPlane(), r.Options
	config := kubeconfig(cp, "kube-controller-manager")
	err := cp.start(daemon{name: "kube-controller-manager", path: r.Binaries["kube-controller-manager"], args: []string{
		"--kubeconfig=" + config,
		"--authentication-kubeconfig=" + config,
		"--authorization-kubeconfig=" + config,
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--root-ca-file=" + certificateFile("ca"),
		"--service-account-private-key-file=" + keyFile("service-account"),
		"--cluster-signing-cert-file=" + certificateFile("ca"),
		"--cluster-signing-key-file=" + keyFile("ca"),
		"--cluster-cidr=" + joined(clusterCIDRs(o.IPFamily)),
		"--service-cluster-ip-range=" + joined(serviceCIDRs(o.IPFamily)),
		"--flex-volume-plugin-dir=" + cp.path("volume-plugins"), // the default is made below /usr
		// The nodes get the pod CIDRs of their numbers.
		"--allocate-node-cidrs=false",
	}})
	if err != nil {
		return err
	}
	config = kubeconfig(cp, "kube-scheduler")
	return cp.start(daemon{name: "kube-scheduler", path: r.Binaries["kube-scheduler"], args: []string{
		"--kubeconfig=" + config,
		"--authentication-kubeconfig=" + config,
		"--authorization-kubeconfig=" + config,
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
	}})
}
