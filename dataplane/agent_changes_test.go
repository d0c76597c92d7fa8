package dataplane

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/dataplane/nodetest"
)

// inForceWithin is how long a change may take from the API server's answer to the
// first packet that shows it.
const inForceWithin = time.Second

// changesScene is an agent with a server that a policy selects, and a client in a
// namespace of its own. Their addresses are those of no other test: the API server
// is shared.
type changesScene struct {
	*agentScene
	server, client *nodetest.Host
	serverPod, pod *corev1.Pod
	clientNS       *corev1.Namespace
	np             *networkingv1.NetworkPolicy
	slowest        time.Duration
}

// TestChangesAreInForceWithinASecond goes from one change to the next; each lets
// the client's packets pass, or ends that.
func TestChangesAreInForceWithinASecond(t *testing.T) {
	s := &changesScene{agentScene: newAgentScene(t)}
	s.server = s.node.AddPod(t, "10.244.1.50")
	s.client = s.node.AddPod(t, "10.244.1.51")
	s.server.ServeUDP(t, 53)
	s.clientNS = s.createNamespace(nil)
	s.serverPod = s.podIn(s.namespace, "server", map[string]string{"app": "server"}, s.server)
	s.pod = s.podIn(s.clientNS.Name, "client", map[string]string{"role": "client"}, s.client)
	s.start()
	defer s.stop()
	s.np = &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "server"}}
	s.setFrom(`[]`)
	require.NoError(t, s.admin.Create(t.Context(), s.np))
	s.eventually(func() bool { return s.enforces(s.np) }, "the agent works")

	s.changeLabels()
	s.changeServer()
	s.changePods()
	s.changeNamespaces()
	s.expect(true, "the policy is deleted", func() { require.NoError(t, s.admin.Delete(t.Context(), s.np)) })
	t.Logf("the slowest change took %s", s.slowest)
}

// changeLabels goes through all operators.
func (s *changesScene) changeLabels() {
	role := func(value string) func() {
		return func() { s.setLabels(s.pod, map[string]string{"role": value}) }
	}
	from := func(requirement string) func() {
		return func() {
			s.updateFrom(fmt.Sprintf(`[{namespaceSelector: {}, podSelector: {matchExpressions: [%s]}}]`, requirement))
		}
	}
	s.expect(true, "a policy's edit: In", from(`{key: role, operator: In, values: [client, other]}`))
	s.expect(false, "a pod's label: In", role("nobody"))
	s.expect(true, "a policy's edit: NotIn", from(`{key: role, operator: NotIn, values: [client]}`))
	s.expect(false, "a pod's label: NotIn", role("client"))
	s.expect(true, "a policy's edit: Exists", from(`{key: role, operator: Exists}`))
	s.expect(false, "a pod's label: Exists", func() { s.setLabels(s.pod, nil) })
	s.expect(true, "a policy's edit: DoesNotExist", from(`{key: role, operator: DoesNotExist}`))
	s.expect(false, "a pod's label: DoesNotExist", role("client"))

	s.expect(true, "a policy's edit: kubernetes.io/metadata.name", func() {
		s.updateFrom(fmt.Sprintf(`[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %s}}}]`, s.clientNS.Name))
	})
	s.expect(false, "a policy's edit: a label of the namespace", func() {
		s.updateFrom(`[{namespaceSelector: {matchLabels: {team: a}}}]`)
	})
	team := func(value string) func() {
		return func() {
			s.setLabels(s.clientNS, map[string]string{"team": value, corev1.LabelMetadataName: s.clientNS.Name})
		}
	}
	s.expect(true, "a namespace's label", team("a"))
	s.expect(false, "a namespace's other label", team("b"))
}

// changeServer changes who is isolated.
func (s *changesScene) changeServer() {
	s.expect(true, "a pod's label: not selected any more", func() { s.setLabels(s.serverPod, map[string]string{"app": "other"}) })
	s.expect(false, "a pod's label: selected", func() { s.setLabels(s.serverPod, map[string]string{"app": "server"}) })
}

// changePods lets the client go, and others come with its address.
func (s *changesScene) changePods() {
	s.expect(true, "a policy's edit: a pod of every namespace", func() {
		s.updateFrom(`[{namespaceSelector: {}, podSelector: {matchLabels: {role: client}}}]`)
	})
	s.expect(false, "a pod is deleted", func() {
		require.NoError(s.t, s.admin.Delete(s.t.Context(), s.pod, client.GracePeriodSeconds(0)))
	})
	s.expect(true, "a pod comes", func() {
		s.pod = s.podIn(s.clientNS.Name, "again", map[string]string{"role": "client"}, s.client)
	})
	s.expect(false, "a pod ends", func() {
		s.pod.Status.Phase = corev1.PodSucceeded
		require.NoError(s.t, s.admin.Status().Update(s.t.Context(), s.pod))
	})
}

// changeNamespaces lets a namespace with a pod come and go.
func (s *changesScene) changeNamespaces() {
	s.updateFrom(`[{namespaceSelector: {matchLabels: {team: new}}}]`)
	var namespace *corev1.Namespace
	s.expect(true, "a namespace comes", func() {
		namespace = s.createNamespace(map[string]string{"team": "new"})
		s.podIn(namespace.Name, "client", nil, s.client)
	})
	require.NoError(s.t, s.admin.Delete(s.t.Context(), namespace))
	s.expect(false, "a namespace is gone", func() { // no controller clears it away here
		require.NoError(s.t, s.admin.Get(s.t.Context(), client.ObjectKeyFromObject(namespace), namespace))
		namespace.Spec.Finalizers = nil
		require.NoError(s.t, s.admin.SubResource("finalize").Update(s.t.Context(), namespace))
	})
}

func (s *changesScene) createNamespace(labels map[string]string) *corev1.Namespace {
	s.t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "changes-", Labels: labels}}
	require.NoError(s.t, s.admin.Create(s.t.Context(), namespace))
	return namespace
}

func (s *changesScene) setLabels(object client.Object, labels map[string]string) {
	s.t.Helper()
	require.NoError(s.t, s.admin.Get(s.t.Context(), client.ObjectKeyFromObject(object), object))
	object.SetLabels(labels)
	require.NoError(s.t, s.admin.Update(s.t.Context(), object))
}

// setFrom makes the policy one that lets these peers reach the server.
func (s *changesScene) setFrom(peers string) {
	s.t.Helper()
	s.np.Spec = networkingv1.NetworkPolicySpec{}
	ingress := fmt.Sprintf(`[{from: %s}]`, peers)
	if peers == `[]` {
		ingress = `[]`
	}
	text := fmt.Sprintf(`{podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress], ingress: %s}`, ingress)
	require.NoError(s.t, yaml.UnmarshalStrict([]byte(text), &s.np.Spec))
}

func (s *changesScene) updateFrom(peers string) {
	s.t.Helper()
	s.setFrom(peers)
	require.NoError(s.t, s.admin.Update(s.t.Context(), s.np))
}

// expect makes a change that has to be seen in time.
func (s *changesScene) expect(want bool, name string, change func()) {
	s.t.Helper()
	require.Equal(s.t, !want, s.passes(), "before: %s", name)
	change()
	start := time.Now()
	for {
		sent := time.Now()
		if s.passes() == want {
			took := sent.Sub(start)
			s.slowest = max(s.slowest, took)
			s.t.Logf("%-55s %s", name, took.Round(time.Millisecond))
			return
		}
		require.Less(s.t, time.Since(start), inForceWithin, name)
	}
}

// passes sends two datagrams, from ports of their own: a busy machine may miss one
// answer.
func (s *changesScene) passes() bool {
	for range 2 {
		if s.client.UDP(s.server.Addrs[0], 53, 50*time.Millisecond) {
			return true
		}
	}
	return false
}
