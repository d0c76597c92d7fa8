package dataplane

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/node/modeltest"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
)

// ranged gives the other nodes of a scene their ranges.
func (s *scene) ranged() {
	for name, cidrs := range map[string][]string{
		thisNode:    {"10.244.1.0/24", "fd00:10:244:1::/64"},
		"elsewhere": {"10.244.2.0/24", "fd00:10:244:2::/64"},
		"third":     {"10.244.3.0/24", "fd00:10:244:3::/64"},
	} {
		s.model.SetRanges(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDRs: cidrs}})
	}
}

// The isolation of a pod doesn't end because another pod shows its address, be the pod
// Terminating or not, and wherever the other pod is.
func TestIsolationDoesNotEndByAnotherPodsStatus(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.label("test-np", map[string]string{"role": "db"})
		s.apply(walkThrough)
		s.sync()
		db, neighbour := s.hosts["test-np"], s.hosts["neighbour"]
		s.requirePings(false, neighbour, db)
		closed := func() {
			t.Helper()
			s.sync()
			s.requirePings(false, neighbour, db)
			s.requirePings(false, db, neighbour)
			s.requireTCP(true, "neighbour", "test-np", 80)
		}
		for _, node := range []string{thisNode, "elsewhere", "third"} {
			s.show("liar", node, nil, db)
			closed()
		}
		leaving := s.pods["test-np"].DeepCopy()
		leaving.DeletionTimestamp = &metav1.Time{Time: time.Now()}
		s.update(leaving)
		for _, node := range []string{thisNode, "elsewhere", "third"} {
			s.show("liar", node, nil, db)
			closed()
		}
		s.ranged()
		closed()

		modeltest.Lose(s.model, s.pods["test-np"])
		s.sync()
		s.requirePings(true, neighbour, db) // the address is the other pod's now
	})
}

// A pod that shows the address of a pod of another node takes nothing from it, and gives
// it nothing: selectors see the pod that has the address from its own node's ranges. Where
// the ranges aren't known the address is no pod's.
func TestAPodOutsideOfItsNodesRangesIsNotThePeer(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.label("test-np", map[string]string{"role": "db"})
		s.apply(walkThrough)
		frontend := map[string]string{"role": "frontend"}
		s.label("busybox", frontend)
		s.pod("default", "stranger", nil, "10.244.2.12", "fd00:10:244:2::12")
		s.sync()
		s.requirePing(true, "busybox", "test-np")
		s.requirePing(false, "stranger", "test-np")

		s.show("thief", "third", nil, s.hosts["busybox"])
		s.show("giver", "third", frontend, s.hosts["stranger"])
		s.sync()
		s.requirePings(false, s.hosts["busybox"], s.hosts["test-np"])
		s.requirePings(false, s.hosts["stranger"], s.hosts["test-np"])

		s.ranged()
		s.sync()
		s.requirePings(true, s.hosts["busybox"], s.hosts["test-np"])
		s.requirePings(false, s.hosts["stranger"], s.hosts["test-np"])

		s.show("thief", thisNode, nil, s.hosts["busybox"])
		s.show("giver", thisNode, frontend, s.hosts["stranger"])
		s.sync()
		s.requirePings(true, s.hosts["busybox"], s.hosts["test-np"])
		s.requirePings(false, s.hosts["stranger"], s.hosts["test-np"])
	})
}

// A pod that shows another node's address doesn't make that node a peer. A pod that claims to
// be on its node's network takes no pod's address, once the ranges are known.
func TestAnotherNodesAddressIsNoPeer(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.label("test-np", map[string]string{"role": "db"})
		s.apply(walkThrough)
		frontend := map[string]string{"role": "frontend"}
		s.label("busybox", frontend)
		s.pod("default", "other-node", nil, "10.244.2.13", "fd00:10:244:2::13")
		modeltest.Lose(s.model, s.pods["other-node"])
		onHost := func(name, node string, at *nodetest.Host) {
			pod := policytest.PodObject(name, node, at.Addrs[0].String(), at.Addrs[1].String())
			pod.Spec.HostNetwork = true
			s.update(pod)
		}
		db, busybox, other := s.hosts["test-np"], s.hosts["busybox"], s.hosts["other-node"]

		for _, node := range []string{"elsewhere", "third", thisNode} {
			s.show("liar", node, frontend, other)
			s.sync()
			s.requirePings(true, other, db) // until somebody says that it is a node
			onHost("kube-proxy", "elsewhere", other)
			onHost("flannel", "elsewhere", other)
			s.sync()
			s.requirePings(false, other, db)
			modeltest.Lose(s.model, s.pods["kube-proxy"])
			modeltest.Lose(s.model, s.pods["flannel"])
		}
		s.requirePings(true, busybox, db)

		onHost("thief", "third", busybox)
		s.sync()
		s.requirePings(false, busybox, db)
		s.ranged()
		s.sync()
		s.requirePings(true, busybox, db)
		onHost("thief", "third", db)
		s.sync()
		s.requirePings(false, s.hosts["neighbour"], db)
	})
}
