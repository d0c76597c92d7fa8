package node

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/podstart"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
)

func sandboxOf(id, uid, addr string) podstart.Sandbox {
	return podstart.Sandbox{ID: id, UID: types.UID(uid), Namespace: "default", Name: "web", Addrs: []netip.Addr{netip.MustParseAddr(addr)}}
}

// What the node enforces is what the API says, with the addresses that the runtime
// knows better, whichever of them speaks first.
func TestSandboxesAreLaidOverTheAPI(t *testing.T) {
	key := types.NamespacedName{Namespace: "default", Name: "web"}
	m := New("node-1")
	for _, step := range []struct {
		name string
		do   func()
		want []string // nil: nothing is enforced
	}{
		{"the runtime speaks first", func() { m.StartSandbox(sandboxOf("s1", "a", "10.0.0.1")) }, []string{"10.0.0.1"}},
		{"the API shows the pod unscheduled", func() { m.SetPod(policytest.APIPod("", "")) }, []string{"10.0.0.1"}},
		{"the API shows the pod without address", func() { m.SetPod(policytest.APIPod("a", "node-1")) }, []string{"10.0.0.1"}},
		{"the API shows the address", func() { m.SetPod(policytest.APIPod("a", "node-1", "10.0.0.1")) }, []string{"10.0.0.1"}},
		{"the sandbox ends", func() { m.StopSandbox(sandboxOf("s1", "a", "10.0.0.1")) }, []string{}},
		{"the API still shows the address", func() { m.SetPod(policytest.APIPod("a", "node-1", "10.0.0.1")) }, []string{}},
		{"the pod gets another sandbox", func() { m.StartSandbox(sandboxOf("s2", "a", "10.0.0.2")) }, []string{"10.0.0.2"}},
		{"the first sandbox is removed", func() { m.StopSandbox(sandboxOf("s1", "a", "10.0.0.1")) }, []string{"10.0.0.2"}},
		{"the API is behind", func() { m.SetPod(policytest.APIPod("a", "node-1", "10.0.0.1")) }, []string{"10.0.0.2"}},
		{"its successor of that name starts", func() { m.StartSandbox(sandboxOf("s3", "b", "10.0.0.3")) }, []string{"10.0.0.3"}},
		{"the API deletes the old one", func() { m.DeletePod(key) }, []string{"10.0.0.3"}},
		{"the API shows the successor", func() { m.SetPod(policytest.APIPod("b", "node-1")) }, []string{"10.0.0.3"}},
		{"the runtime lists another", func() { m.ReplaceSandboxes([]podstart.Sandbox{sandboxOf("s4", "b", "10.0.0.4")}) }, []string{"10.0.0.4"}},
		{"the runtime lists none", func() { m.ReplaceSandboxes(nil) }, []string{}},
		{"the runtime lists it again", func() { m.ReplaceSandboxes([]podstart.Sandbox{sandboxOf("s4", "b", "10.0.0.4")}) }, []string{"10.0.0.4"}},
		{"the API deletes the pod", func() { m.DeletePod(key) }, nil},
	} {
		step.do()
		pod := m.local[key]
		if step.want == nil {
			require.Nil(t, pod, step.name)
			continue
		}
		require.NotNil(t, pod, step.name)
		got := []string{}
		for _, addr := range pod.Addrs {
			got = append(got, addr.String())
		}
		require.Equal(t, step.want, got, step.name)
	}
}

// A hostNetwork pod keeps its node's address whatever the runtime says.
func TestSandboxesLeaveHostNetworkAlone(t *testing.T) {
	m := New("node-1")
	pod := policytest.APIPod("a", "node-1")
	pod.Subject = false
	m.SetPod(pod)
	m.StartSandbox(sandboxOf("s", "a", "172.30.0.1"))
	require.Empty(t, m.local)
}
