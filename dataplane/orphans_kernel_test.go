package dataplane

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/node/modeltest"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/podstart"
	"github.com/moat-dev/moat/dataplane/policy"
)

// runs is the runtime's word on a pod of the scene.
func (s *scene) runs(name string, uid types.UID) podstart.Sandbox {
	return podstart.Sandbox{ID: name + string(uid), UID: uid, Namespace: "default", Name: name, Labels: s.pods[name].Labels, Addrs: s.hosts[name].Addrs}
}

// A pod that is deleted by force, and that still runs, is closed in both directions until
// the runtime says that it has ended, whether or not a policy isolated it. A pod of the
// same name that follows it is open.
func TestAPodDeletedByForceIsClosedWhileItRuns(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.label("test-np", map[string]string{"role": "db"})
		s.apply(walkThrough)
		sandbox, other := s.runs("test-np", ""), s.runs("neighbour", "")
		s.model.ReplaceSandboxes([]podstart.Sandbox{sandbox, other})
		s.sync()
		db, neighbour, project := s.hosts["test-np"], s.hosts["neighbour"], s.hosts["project"]
		s.requirePings(true, project, db)

		closed := func(host *nodetest.Host) {
			t.Helper()
			s.sync()
			s.requirePings(false, project, host)
			s.requirePings(false, s.hosts["busybox"], host)
			s.requirePings(false, host, s.hosts["busybox"])
			s.requirePings(false, host, s.node.Host)
			s.requirePings(true, s.node.Host, host)
		}
		modeltest.Lose(s.model, s.pods["test-np"])
		closed(db)
		s.requireTCP(false, "busybox", "test-np", 80)
		s.remove("test-network-policy") // the namespace's policies go too
		closed(db)
		s.show("liar", thisNode, nil, db)
		closed(db)
		s.requirePings(true, project, neighbour)
		modeltest.Lose(s.model, s.pods["neighbour"]) // nothing isolated it
		closed(neighbour)

		newOwner := s.node.AddPod(t, "10.244.1.40", "fd00:10:244:1::40")
		s.model.SetPod(&policy.Pod{Namespace: "default", Name: "neighbour", Node: thisNode, UID: "b", Subject: true, Addrs: newOwner.Addrs})
		s.sync()
		s.requirePings(true, project, newOwner)
		s.requirePings(false, project, neighbour)

		s.model.ReplaceSandboxes([]podstart.Sandbox{sandbox, other}) // the runtime is connected again
		closed(neighbour)
		s.model.StopSandbox(sandbox)
		s.sync()
		s.requirePings(true, project, db) // nobody's address, as before
		s.requirePings(false, project, neighbour)
		s.model.ReplaceSandboxes(nil)
		s.sync()
		s.requirePings(true, project, neighbour)
	})
}

// Without a runtime the network says which pods still run, where it has a route for each.
func TestTheNetworkSaysThatAPodStillRuns(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		old := s.node.AddRemote(t, "10.244.1.20", "fd00:10:244:1::20") // a link of its own
		s.show("old", thisNode, nil, old)
		s.sync()
		remote := s.hosts["busybox"]
		s.requirePings(true, remote, old)

		modeltest.Lose(s.model, s.pods["old"])
		s.sync()
		s.requirePings(false, remote, old)
		s.requirePings(false, old, remote)
		require.Equal(t, 2, s.model.Routed())

		for _, addr := range old.Addrs {
			s.run("ip", "route", "del", netip.PrefixFrom(addr, addr.BitLen()).String())
		}
		newOwner := s.node.AddRemote(t, "10.244.1.20", "fd00:10:244:1::20")
		s.sync()
		s.requirePings(true, remote, newOwner)
		require.Zero(t, s.model.Routed())

		// Where the address is another pod's by the time that the API loses the first.
		s.show("first", thisNode, nil, newOwner)
		s.show("second", thisNode, nil, newOwner)
		s.sync()
		modeltest.Lose(s.model, s.pods["first"])
		s.sync()
		s.requirePings(true, remote, newOwner)
	})
}

// What a pod had opened before it was deleted ends too.
func TestConnectionsOfAPodDeletedByForceEnd(t *testing.T) {
	s := guarded(t, iptables.NFT)
	s.model.ReplaceSandboxes([]podstart.Sandbox{s.runs("server", "")})
	s.sync()
	defer s.runAgent()()
	connections, allowed := streams{}, streams{}
	connections.open(t, "far", s.hosts["far"], s.hosts["server"])
	connections.open(t, "out", s.hosts["server"], s.hosts["near"])
	allowed.open(t, "others", s.hosts["far"], s.hosts["near"])
	connections.requireFlow(s)
	connections.requireCut(s, func() { modeltest.Lose(s.model, s.pods["server"]) })
	allowed.requireFlow(s)
}
