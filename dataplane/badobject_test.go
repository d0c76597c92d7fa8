package dataplane

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/nodetest"
)

// badObjects is a node with an agent and three pods: a server that bad policies
// select, a bystander in another namespace that a good policy isolates, and a
// client that may reach the bystander.
type badObjects struct {
	*agentScene
	server, bystander, client, stranger *nodetest.Host
	good                                *networkingv1.NetworkPolicy
}

func newBadObjects(t *testing.T) *badObjects {
	t.Helper()
	return newBadObjectsOf(t, func(*agentScene) {})
}

// newBadObjectsOf sets up the scene before it starts.
func newBadObjectsOf(t *testing.T, setUp func(*agentScene)) *badObjects {
	t.Helper()
	s := &badObjects{agentScene: newAgentScene(t)}
	setUp(s.agentScene)
	s.server, s.bystander = s.node.AddPod(t, "10.244.1.10"), s.node.AddPod(t, "10.244.1.11")
	s.client, s.stranger = s.node.AddPod(t, "10.244.1.12"), s.node.AddPod(t, "10.244.1.13")
	s.server.ServeTCP(t, 80)
	s.pod("server", map[string]string{"app": "server"}, s.server)

	own := s.namespace
	s.namespace = apiServer.Namespace(t)
	s.pod("bystander", nil, s.bystander)
	s.pod("client", map[string]string{"role": "client"}, s.client)
	s.pod("stranger", nil, s.stranger)
	s.good = s.create(`{metadata: {name: good}, spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {role: client}}}]}]}}`)
	s.namespace = own
	s.start()
	s.requireGood("before")
	return s
}

// create makes a policy through the API server.
func (s *agentScene) create(text string) *networkingv1.NetworkPolicy {
	s.t.Helper()
	np := &networkingv1.NetworkPolicy{}
	require.NoError(s.t, yaml.UnmarshalStrict([]byte(text), np))
	return s.createObject(np)
}

func (s *agentScene) createObject(np *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	s.t.Helper()
	if np.Namespace == "" {
		np.Namespace = s.namespace
	}
	require.NoError(s.t, s.admin.Create(s.t.Context(), np))
	return np
}

// requireGood requires that the good policy is in force and reported.
func (s *badObjects) requireGood(when string) {
	s.t.Helper()
	s.eventually(func() bool { return s.enforces(s.good) }, when+": the good policy is reported")
	require.True(s.t, s.client.Ping(s.bystander.Addrs[0], answerWithin), when)
	require.False(s.t, s.stranger.Ping(s.bystander.Addrs[0], silentAfter), when)
}

func (s *agentScene) failureOf(uid types.UID) *v1alpha1.PolicyFailure {
	for _, failure := range s.report().Status.Failures {
		if failure.UID == uid {
			return &failure
		}
	}
	return nil
}

// What the API server stores can be older than its validation. A policy that can't
// be read closes its own pods to what it doesn't allow for certain, says so in the
// node's report, and is nobody else's problem.
func TestUnreadablePoliciesCloseTheirPods(t *testing.T) {
	s := newBadObjects(t)
	any80 := `"ingress":[{"from":[%s],"ports":[{"port":80,"protocol":"TCP"}]}]`
	for i, row := range []struct {
		name, spec, field string
		closed            bool
	}{
		{"its own selector has a value that is no label", `"podSelector":{"matchLabels":{"app":"not a label!"}}`, "spec.podSelector", true},
		{"its own selector has an unknown operator", `"podSelector":{"matchExpressions":[{"key":"app","operator":"Like","values":["server"]}]}`, "spec.podSelector", true},
		{"a peer's selector has a key that is no label", `"podSelector":{},` + fmt.Sprintf(any80, `{"namespaceSelector":{"matchLabels":{"!":"x"}}}`), "spec.ingress[0].from[0]", true},
		{"a CIDR is no CIDR", `"podSelector":{},` + fmt.Sprintf(any80, `{"ipBlock":{"cidr":"10.244.1.0"}}`), "spec.ingress[0].from[0]", true},
		{"an exception is no CIDR", `"podSelector":{},` + fmt.Sprintf(any80, `{"ipBlock":{"cidr":"10.244.0.0/16","except":["::x"]}}`), "ipBlock.except[0]", true},
		{"another peer of the rule is readable", `"podSelector":{},` + fmt.Sprintf(any80, `{"ipBlock":{"cidr":"x"}},{"ipBlock":{"cidr":"10.244.1.0/24"}}`), "spec.ingress[0].from[0]", false},
		{"a peer is empty", `"podSelector":{},` + fmt.Sprintf(any80, `{}`), "a peer needs", true},
		{"a port is out of range", `"podSelector":{},"ingress":[{"ports":[{"port":70000}]}]`, "spec.ingress[0].ports[0]", true},
		{"a protocol is unknown", `"podSelector":{},"ingress":[{"ports":[{"protocol":"DCCP","port":80}]}]`, "DCCP", true},
		{"a policy type is unknown", `"podSelector":{},"policyTypes":["Sideways"]`, "spec.policyTypes[0]", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			uid := types.UID(fmt.Sprintf("00000000-0000-0000-0000-%012d", i))
			if !strings.Contains(row.spec, "policyTypes") {
				row.spec += `,"policyTypes":["Ingress"]`
			}
			key := "networkpolicies/" + s.namespace + "/bad"
			apiServer.Store(t, key, fmt.Sprintf(`{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy",`+
				`"metadata":{"name":"bad","namespace":%q,"uid":%q,"generation":1},"spec":{%s}}`, s.namespace, uid, row.spec))
			s.eventually(func() bool { return s.failureOf(uid) != nil }, "the report names the policy")
			failure := s.failureOf(uid)
			require.Equal(t, v1alpha1.NodeReasonPolicyUnreadable, failure.Reason)
			require.Contains(t, failure.Message, row.field)
			require.Equal(t, !row.closed, s.client.TCP(s.server.Addrs[0], 80, patience(!row.closed)))
			s.requireGood(row.name)

			apiServer.Unstore(t, key)
			s.eventually(func() bool { return s.client.TCP(s.server.Addrs[0], 80, silentAfter) }, "the pod is open again")
		})
	}
	s.stop()
}

// Policies that are as large as the API server takes them are in force.
func TestExtremePolicies(t *testing.T) {
	s := newBadObjects(t)
	const legal = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
	long := apiServer.Namespace(t)
	require.NoError(t, s.admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: long + strings.Repeat("x", 63-len(long))}}))
	long += strings.Repeat("x", 63-len(long))
	labels := map[string]string{"example.com/a": legal[:62] + "A", "b": "0" + legal[30:] + "z"}

	t.Run("names and labels of the greatest length", func(t *testing.T) {
		odd := s.node.AddPod(t, "10.244.1.20")
		own := s.namespace
		s.namespace = long
		s.pod(strings.Repeat("p", 253), labels, odd)
		name := strings.Repeat("n", 253)
		np := s.create(fmt.Sprintf(`{metadata: {name: %s}, spec: {podSelector: {matchLabels: {example.com/a: %q}}, ingress: [{from: [{podSelector: {matchLabels: {b: %q}}}]}]}}`,
			name, labels["example.com/a"], labels["b"]))
		s.namespace = own
		s.eventually(func() bool { return s.enforces(np) }, "it is reported")
		require.True(t, odd.Ping(odd.Addrs[0], answerWithin))
		require.False(t, s.client.Ping(odd.Addrs[0], silentAfter))
		s.requireGood("with long names")
	})

	for name, np := range map[string]*networkingv1.NetworkPolicy{
		"1,000 rules":                     rulesFor(1000, func(int) int { return 1 }),
		"1,000 peers":                     rulesFor(1, func(int) int { return 1000 }),
		"10,000 CIDRs":                    blocksOf(10_000, 0),
		"700 CIDRs, 100 exceptions each":  blocksOf(700, 100),
		"100 rules with 12 peers of each": rulesFor(100, func(int) int { return 12 }),
	} {
		t.Run(name, func(t *testing.T) {
			require.False(t, s.stranger.TCP(s.server.Addrs[0], 81, silentAfter), "nobody serves it")
			np = np.DeepCopy()
			np.Namespace, np.Name = s.namespace, "large"
			s.createObject(np)
			s.eventually(func() bool { return s.enforces(np) }, "it is reported")
			require.True(t, s.client.TCP(s.server.Addrs[0], 80, answerWithin), "the last of them allows it")
			require.False(t, s.stranger.TCP(s.server.Addrs[0], 80, silentAfter))
			s.requireGood(name)
			require.NoError(t, s.admin.Delete(t.Context(), np))
			s.eventually(func() bool { return s.stranger.TCP(s.server.Addrs[0], 80, silentAfter) }, "it is gone")
		})
	}
	s.stop()
}

// rulesFor makes rules with peers of which the last one of all selects the client.
func rulesFor(rules int, peers func(rule int) int) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{}
	for i := range rules {
		rule := networkingv1.NetworkPolicyIngressRule{Ports: []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromInt(80))}, {Port: new(intstr.FromInt(1000 + i))}}}
		for j := range peers(i) {
			labels := map[string]string{"nobody": fmt.Sprintf("%d-%d", i, j)}
			if i == rules-1 && j == peers(i)-1 {
				labels = map[string]string{"role": "client"}
			}
			rule.From = append(rule.From, networkingv1.NetworkPolicyPeer{
				NamespaceSelector: &metav1.LabelSelector{}, PodSelector: &metav1.LabelSelector{MatchLabels: labels},
			})
		}
		np.Spec.Ingress = append(np.Spec.Ingress, rule)
	}
	return np
}

// blocksOf makes blocks of which the last one holds the client, 10.244.1.12, and
// excepts the stranger, 10.244.1.13.
func blocksOf(blocks, excepts int) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{}
	np.Spec.Ingress = make([]networkingv1.NetworkPolicyIngressRule, 1)
	add := func(prefix, length string) {
		block := &networkingv1.IPBlock{CIDR: prefix + length}
		base := prefix[:strings.LastIndex(prefix, ".")]
		for i := range excepts {
			block.Except = append(block.Except, fmt.Sprintf("%s.%d/32", base, 2*i+1))
		}
		np.Spec.Ingress[0].From = append(np.Spec.Ingress[0].From, networkingv1.NetworkPolicyPeer{IPBlock: block})
	}
	for i := range blocks - 1 {
		add(fmt.Sprintf("%d.%d.%d.0", 20+i>>16, i>>8&255, i&255), "/24")
	}
	if excepts > 0 {
		add("10.244.1.0", "/24")
	} else {
		add("10.244.1.12", "/32")
	}
	return np
}

// An object that the API server itself can't decode keeps it from telling of any
// other of its kind. The rules stand, also over a restart of the agent; the report
// says what is wrong; and once the object is gone everything catches up.
func TestAnObjectThatTheAPIServerCantDecode(t *testing.T) {
	s := newBadObjects(t)
	degraded := func() *metav1.Condition {
		return apimeta.FindStatusCondition(s.report().Status.Conditions, v1alpha1.NodeConditionDegraded)
	}
	require.Equal(t, metav1.ConditionFalse, degraded().Status)

	key := "networkpolicies/" + s.namespace + "/undecodable"
	apiServer.Store(t, key, fmt.Sprintf(`{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"undecodable","namespace":%q},`+
		`"spec":{"podSelector":{"matchLabels":["app"]},"policyTypes":["Ingress"]}}`, s.namespace))
	s.eventually(func() bool { return degraded().Status == metav1.ConditionTrue }, "the report says that something can't be read")
	require.Equal(t, v1alpha1.NodeReasonStorageUnreadable, degraded().Reason)
	require.Contains(t, degraded().Message, "no change of networkpolicies")
	require.Contains(t, degraded().Message, key)
	s.requireGood("while the API server can't read a policy")

	later := s.create(`{metadata: {name: later}, spec: {podSelector: {}, policyTypes: [Ingress]}}`)
	s.stop()
	s.start()
	require.Never(t, func() bool {
		return !s.client.Ping(s.bystander.Addrs[0], answerWithin) || s.stranger.Ping(s.bystander.Addrs[0], silentAfter)
	}, 3*time.Second, 20*time.Millisecond, "the rules of the agent before stand")

	apiServer.Unstore(t, key)
	// The API server waits longer after each attempt to read its storage, up to half
	// a minute, and so do the agent's informers.
	require.Eventually(t, func() bool { return s.enforces(later) }, 2*time.Minute, 20*time.Millisecond, "what came in the meantime is in force")
	require.False(t, s.client.TCP(s.server.Addrs[0], 80, silentAfter))
	s.eventually(func() bool { return degraded().Status == metav1.ConditionFalse }, "and nothing is wrong any more")
	s.requireGood("after")
	s.stop()
}
