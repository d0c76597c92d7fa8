//go:build linux

package kube

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

	"github.com/moat-dev/moat/hack/cluster/machine"
)

const (
	apiServerPort    = 6443
	apiServerTimeout = 2 * time.Minute
)

// startAPI starts etcd and the API server; awaitAPI says when they serve.
func startAPI(r *machine.Record) error {
	cp := machine.ControlPlane()
	err := cp.Start(machine.Daemon{Name: "etcd", Path: r.Binaries["etcd"], Args: []string{
		"--data-dir=" + cp.Path("etcd"),
		// Nothing here has to survive a power cut.
		"--unsafe-no-fsync",
		"--listen-client-urls=http://127.0.0.1:2379",
		"--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380",
	}})
	if err != nil {
		return err
	}
	return cp.Start(machine.Daemon{Name: "kube-apiserver", Path: r.Binaries["kube-apiserver"], Args: apiServerArgs(r.Options)})
}

func apiServerArgs(o machine.Options) []string {
	addresses := machine.ControlPlane().Addresses(o.IPFamily)
	return []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address=" + addresses[0].Addr().String(),
		fmt.Sprintf("--secure-port=%d", apiServerPort),
		"--service-cluster-ip-range=" + machine.Joined(machine.ServiceCIDRs(o.IPFamily)),
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
	return machine.ControlPlane().Await("kube-apiserver", "the API server", apiServerTimeout, func() (bool, error) {
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
		enterErr := machine.ControlPlane().InNetns(func() error {
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
func startControllers(r *machine.Record) error {
	cp, o := machine.ControlPlane(), r.Options
	config := kubeconfig(cp, "kube-controller-manager")
	err := cp.Start(machine.Daemon{Name: "kube-controller-manager", Path: r.Binaries["kube-controller-manager"], Args: []string{
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
		"--cluster-cidr=" + machine.Joined(machine.ClusterCIDRs(o.IPFamily)),
		"--service-cluster-ip-range=" + machine.Joined(machine.ServiceCIDRs(o.IPFamily)),
		"--flex-volume-plugin-dir=" + cp.Path("volume-plugins"), // the default is made below /usr
		// The nodes get the pod CIDRs of their numbers.
		"--allocate-node-cidrs=false",
	}})
	if err != nil {
		return err
	}
	config = kubeconfig(cp, "kube-scheduler")
	return cp.Start(machine.Daemon{Name: "kube-scheduler", Path: r.Binaries["kube-scheduler"], Args: []string{
		"--kubeconfig=" + config,
		"--authentication-kubeconfig=" + config,
		"--authorization-kubeconfig=" + config,
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
	}})
}
