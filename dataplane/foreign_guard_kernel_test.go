package dataplane

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/dataplane/host"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/podstart"
)

const routerMTU = 1500

func addrsOf(texts []string) []netip.Addr {
	var addrs []netip.Addr
	for _, text := range texts {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	return addrs
}

// show makes the API show a pod of a node with the host's addresses.
func (s *scene) show(name, node string, labels map[string]string, host *nodetest.Host) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: labels}}
	pod.Spec.NodeName = node
	for _, addr := range host.Addrs {
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: addr.String()})
	}
	s.update(pod)
}

// unrouteTo takes away the node's routes to a host, as a network does before it gives the
// host's addresses to a new pod of this node.
func (s *scene) unrouteTo(host *nodetest.Host) {
	s.t.Helper()
	require.NoError(s.t, s.node.Do(func() error {
		for _, addr := range host.Addrs {
			bits := addr.BitLen()
			to := &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(bits, bits)}
			if err := netlink.RouteDel(&netlink.Route{Dst: to}); err != nil {
				return err
			}
		}
		return nil
	}))
}

// In a network that hands out addresses without regard to podCIDRs, a pod of another node
// has one of this Node's. It passes the guard as soon as the API shows it. When the network
// gives the address to a new pod of this node, that pod is closed from its first packet
// on, whether or not a runtime says so and although the API still shows it elsewhere;
// until its rules are in force, and again when its sandbox has ended.
func TestPodsOfOtherNodesPassTheGuard(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := newScene(t, backend)
		s.namespace("default", nil)
		s.namespace("ours", map[string]string{"project": "myproject"})
		s.pod("default", "busybox", nil, "10.244.2.10", "fd00:10:244:2::10")
		s.pod("ours", "project", nil, "10.244.2.11", "fd00:10:244:2::11")
		// Pods of this node have links of their own, as with Calico.
		old := s.node.AddRemote(t, "10.244.1.20", "fd00:10:244:1::20")
		s.show("old", thisNode, nil, old)
		foreign := s.node.AddBehindRouter(t, routerMTU, "10.244.1.77", "fd00:10:244:1::77")
		remote, project := s.hosts["busybox"], s.hosts["project"]
		s.apply(walkThrough)
		s.guardNode()
		s.sync()
		s.requirePings(true, remote, old)
		s.requirePings(false, remote, foreign)
		s.requirePings(false, foreign, remote)

		s.show("foreign", "elsewhere", nil, foreign)
		s.sync()
		for _, peer := range []*nodetest.Host{remote, old} {
			s.requirePings(true, peer, foreign)
			s.requirePings(true, foreign, peer)
		}
		s.requirePings(true, foreign, s.node.Host)
		fresh := s.node.AddRemote(t, "10.244.1.40", "fd00:10:244:1::40")
		s.requirePings(false, foreign, fresh)
		s.requirePings(false, fresh, foreign)

		s.unrouteTo(foreign)
		newOwner := s.node.AddRemote(t, "10.244.1.77", "fd00:10:244:1::77")
		closed := func(why string) {
			t.Helper()
			t.Log(why)
			s.requirePings(false, remote, newOwner)
			s.requirePings(false, newOwner, remote)
			s.requirePings(false, newOwner, s.node.Host)
			s.requirePings(true, remote, old)
		}
		closed("nobody has told the agent")
		s.enforcer.inspect()
		s.sync()
		closed("the agent has seen the new route, and the API shows the address elsewhere")

		sandbox := podstart.Sandbox{ID: "1", UID: "u", Namespace: "default", Name: "next", Labels: map[string]string{"role": "db"}, Addrs: newOwner.Addrs}
		s.model.StartSandbox(sandbox)
		s.sync()
		s.requirePings(false, remote, newOwner)
		s.requirePings(true, project, newOwner)

		s.model.StopSandbox(sandbox)
		s.sync()
		closed("its sandbox has ended")
	})
}

// Where the rules of a pod that gets a foreign address can't be written, it stays closed.
func TestAFailedRestoreClosesAnAddressThatComesHere(t *testing.T) {
	s := newScene(t, iptables.NFT)
	s.namespace("default", nil)
	s.namespace("ours", map[string]string{"project": "myproject"})
	s.pod("ours", "project", nil, "10.244.2.11", "fd00:10:244:2::11")
	foreign := s.node.AddBehindRouter(t, routerMTU, "10.244.1.77", "fd00:10:244:1::77")
	s.show("foreign", "elsewhere", nil, foreign)
	s.apply(walkThrough)
	s.guardNode()
	s.sync()
	s.requirePings(true, s.hosts["project"], foreign)

	s.unrouteTo(foreign)
	newOwner := s.node.AddRemote(t, "10.244.1.77", "fd00:10:244:1::77")
	s.breakRestore(true)
	s.model.StartSandbox(podstart.Sandbox{ID: "1", UID: "u", Namespace: "default", Name: "next", Labels: map[string]string{"role": "db"}, Addrs: newOwner.Addrs})
	require.Error(t, s.trySync())
	s.requirePings(false, s.hosts["project"], newOwner)
	require.NotContains(t, s.run("ipset", "list", "moat-4-foreign"), "10.244.1.77", "what was spared is closed before the rules change")
	s.breakRestore(false)
	s.sync()
	s.requirePings(true, s.hosts["project"], newOwner)
}

// Uplinks lead to other machines: by a gateway, a tunnel or the way to the rest of the
// world. An interface that leads to a pod of this node is none, whatever else it leads to.
func TestUplinksLeadToOtherNodes(t *testing.T) {
	s := newScene(t, iptables.NFT)
	for _, addr := range []string{"10.244.9.1", "10.244.9.2", "192.168.9.9", "10.244.9.4"} {
		s.node.AddRemote(t, addr) // veth1 to veth4
	}
	require.NoError(t, s.node.Do(func() error {
		tunnel := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "flannel.1", TxQLen: -1}, VxlanId: 1, Port: 8472}
		if err := netlink.LinkAdd(tunnel); err != nil {
			return err
		}
		return netlink.LinkSetUp(tunnel)
	}))
	s.route("10.244.7.0/24", "veth2", "10.244.9.2")
	s.route("10.244.8.0/24", "flannel.1", "")
	s.route("0.0.0.0/0", "veth3", "192.168.9.9")
	s.route("10.244.6.0/24", "veth4", "10.244.9.4")
	for name, row := range map[string]struct {
		foreign, local []string
		want           []string
	}{
		"no foreign address":                     {nil, []string{"10.244.1.10"}, nil},
		"behind a gateway":                       {[]string{"10.244.7.7", "10.244.7.8"}, []string{"10.244.1.10"}, []string{"veth2"}},
		"behind a tunnel":                        {[]string{"10.244.8.1"}, nil, []string{"flannel.1"}},
		"the rest of the world":                  {[]string{"172.16.0.1", "10.244.7.7"}, nil, []string{"veth2", "veth3"}},
		"next to the node, as its own pods are":  {[]string{"10.244.9.1", "10.244.1.10"}, nil, nil},
		"the node itself, and nowhere":           {[]string{"10.244.1.1", "fd00:10:244:77::1"}, nil, nil},
		"a neighbour, and others behind it":      {[]string{"10.244.9.2", "10.244.7.7"}, nil, nil},
		"a pod here that has gone":               {[]string{"172.16.0.1"}, []string{"172.16.0.2"}, []string{"veth3"}},
		"a gateway that leads to a pod here too": {[]string{"10.244.6.1"}, []string{"10.244.9.4"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var links []string
			require.NoError(t, s.node.Do(func() (err error) {
				links, err = host.UplinksOf(addrsOf(row.foreign), addrsOf(row.local))
				return err
			}))
			require.Equal(t, row.want, links)
		})
	}
}
