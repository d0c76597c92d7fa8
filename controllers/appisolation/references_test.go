package appisolation

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/appisolation/isolation"
	"github.com/moat-dev/moat/controllers/appisolation/isolation/isolationtest"
)

// closeTo stores an AppIsolation that closes egress but to the peers, and ingress.
func (f *fixture) closeTo(peers ...v1alpha1.Peer) {
	f.t.Helper()
	app := &v1alpha1.AppIsolation{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.key.Namespace, Name: f.key.Name},
		Spec: v1alpha1.AppIsolationSpec{
			Selector:   &v1alpha1.LabelSelector{},
			Directions: []v1alpha1.Direction{v1alpha1.DirectionIngress, v1alpha1.DirectionEgress},
			Egress:     []v1alpha1.EgressRule{{Name: "out", To: peers}},
			Implicit:   v1alpha1.Implicit{DNS: v1alpha1.ImplicitDeny},
		},
	}
	require.NoError(f.t, f.admin.Create(f.t.Context(), app))
}

// egress waits until the policy's egress is as wanted, one "peers at ports" for
// each rule.
func (f *fixture) egress(wanted ...string) {
	f.t.Helper()
	var last []string
	defer func() {
		if f.t.Failed() {
			f.t.Log("the last egress:", last)
		}
	}()
	f.eventually(func() bool {
		policy := f.policy()
		if policy == nil {
			return false
		}
		last = describe(policy.Spec.Egress)
		return slices.Equal(wanted, last)
	}, fmt.Sprint("egress ", wanted))
}

func describe(rules []networkingv1.NetworkPolicyEgressRule) []string {
	var texts []string
	for _, rule := range rules {
		text := ""
		for _, peer := range rule.To {
			if peer.IPBlock != nil {
				text += peer.IPBlock.CIDR + " "
			} else {
				text += metav1.FormatLabelSelector(peer.PodSelector) + " "
			}
		}
		for _, port := range rule.Ports {
			text += port.Port.String() + "/" + string(*port.Protocol) + " "
		}
		texts = append(texts, text[:len(text)-1])
	}
	return texts
}

func (f *fixture) update(object client.Object, change func()) {
	f.t.Helper()
	f.eventually(func() bool {
		require.NoError(f.t, f.admin.Get(f.t.Context(), client.ObjectKeyFromObject(object), object))
		change()
		err := f.admin.Update(f.t.Context(), object)
		require.True(f.t, err == nil || apierrors.IsConflict(err), "updating: %v", err)
		return err == nil
	}, "update accepted")
}

func TestServiceIsFollowed(t *testing.T) {
	f := newFixture(t)
	f.closeTo(v1alpha1.Peer{Service: &v1alpha1.ServicePeer{Name: "redis"}})
	missing := f.condition(v1alpha1.ConditionResolvedRefs, metav1.ConditionFalse, v1alpha1.ReasonServiceNotFound)
	require.Contains(t, missing.Message, "egress rule out: Service "+f.key.Namespace+"/redis doesn't exist")
	f.condition(v1alpha1.ConditionProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
	f.egress()

	redis := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.key.Namespace, Name: "redis"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "redis"},
			Ports:    []corev1.ServicePort{{Port: 6379, TargetPort: intstr.FromString("redis")}},
		},
	}
	require.NoError(t, f.admin.Create(t.Context(), redis))
	f.egress("app=redis redis/TCP")
	f.condition(v1alpha1.ConditionResolvedRefs, metav1.ConditionTrue, v1alpha1.ReasonResolved)

	f.update(redis, func() { redis.Spec.Ports[0].TargetPort = intstr.FromInt32(16379) })
	f.egress("app=redis 16379/TCP")
	f.update(redis, func() { redis.Spec.Selector["tier"] = "cache" })
	f.egress("app=redis,tier=cache 16379/TCP")

	require.NoError(t, f.admin.Delete(t.Context(), redis))
	f.egress()
	f.condition(v1alpha1.ConditionResolvedRefs, metav1.ConditionFalse, v1alpha1.ReasonServiceNotFound)
}

func TestEndpointSlicesAreFollowed(t *testing.T) {
	f := newFixture(t)
	f.closeTo(v1alpha1.Peer{Service: &v1alpha1.ServicePeer{Name: "legacy"}})
	legacy := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.key.Namespace, Name: "legacy"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 5432}}},
	}
	require.NoError(t, f.admin.Create(t.Context(), legacy))
	f.condition(v1alpha1.ConditionResolvedRefs, metav1.ConditionTrue, v1alpha1.ReasonResolved)
	f.egress()

	endpoints := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: f.key.Namespace, Name: "legacy-1", Labels: map[string]string{discoveryv1.LabelServiceName: "legacy"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.9.9.9"}}},
		Ports:       []discoveryv1.EndpointPort{{Name: new(""), Port: new(int32(15432))}},
	}
	require.NoError(t, f.admin.Create(t.Context(), endpoints))
	f.egress("10.9.9.9/32 15432/TCP")
	f.update(endpoints, func() {
		endpoints.Endpoints = append(endpoints.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.9.9.8"}})
	})
	f.egress("10.9.9.8/32 10.9.9.9/32 15432/TCP")

	// Moved to another Service.
	f.update(endpoints, func() { endpoints.Labels[discoveryv1.LabelServiceName] = "other" })
	f.egress()
}

// TestKubeAPIServer: the test's API server has written where it listens.
func TestKubeAPIServer(t *testing.T) {
	f := newFixture(t)
	f.closeTo(v1alpha1.Peer{Entity: v1alpha1.EntityKubeAPIServer})
	own := &discoveryv1.EndpointSlice{}
	f.eventually(func() bool {
		return f.admin.Get(t.Context(), isolation.APIServerSlice, own) == nil
	}, "the API server names itself")
	server := fmt.Sprintf("%s/32 %d/TCP", own.Endpoints[0].Addresses[0], *own.Ports[0].Port)
	f.egress(server)
	f.condition(v1alpha1.ConditionResolvedRefs, metav1.ConditionTrue, v1alpha1.ReasonResolved)

	// Another slice of that Service isn't the API server's.
	forged := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: isolation.APIServerSlice.Namespace, Name: "kubernetes-too", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"203.0.113.9"}}},
		Ports:       []discoveryv1.EndpointPort{{Name: new("https"), Port: new(int32(443))}},
	}
	require.NoError(t, f.admin.Create(t.Context(), forged))
	t.Cleanup(func() { require.NoError(t, f.admin.Delete(context.Background(), forged)) })
	f.edit(func(app *v1alpha1.AppIsolation) {
		app.Spec.Egress[0].To = append(app.Spec.Egress[0].To, v1alpha1.Peer{CIDR: &v1alpha1.CIDRPeer{CIDR: "198.51.100.0/24"}})
	})
	f.egress("198.51.100.0/24", server)
}

func TestConfigIsFollowed(t *testing.T) {
	f := newFixture(t)
	f.closeTo(v1alpha1.Peer{Entity: v1alpha1.EntityDNS}, v1alpha1.Peer{Entity: v1alpha1.EntityNodes})
	missing := f.condition(v1alpha1.ConditionResolvedRefs, metav1.ConditionFalse, v1alpha1.ReasonEntityNotConfigured)
	require.Contains(t, missing.Message, "entity DNS: there is no IsolationConfig named default")
	f.egress()

	config := &v1alpha1.IsolationConfig{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.IsolationConfigName},
		Spec: v1alpha1.IsolationConfigSpec{
			NodeCIDRs: []string{"192.168.7.0/24"},
			DNS: &v1alpha1.DNSConfig{EntityConfig: v1alpha1.EntityConfig{Peers: []v1alpha1.ConfigPeer{{
				App: &v1alpha1.AppPeer{
					LabelSelector: v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"k8s-app": "kube-dns"}},
					Namespaces:    &v1alpha1.NamespacePeer{Names: []string{"kube-system"}},
				},
			}}}},
		},
	}
	require.NoError(t, f.admin.Create(t.Context(), config))
	t.Cleanup(func() { require.NoError(t, f.admin.Delete(context.Background(), config)) })
	f.egress("192.168.7.0/24", "k8s-app=kube-dns 53/UDP 53/TCP")
	f.condition(v1alpha1.ConditionResolvedRefs, metav1.ConditionTrue, v1alpha1.ReasonResolved)

	f.update(config, func() { config.Spec.DNS.Ports = []v1alpha1.Port{{Port: new(intstr.FromInt32(5353)), Protocol: "UDP"}} })
	f.egress("192.168.7.0/24", "k8s-app=kube-dns 5353/UDP")

	// Without ranges the Nodes say where they are, and their changes are followed.
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: f.key.Namespace}}
	require.NoError(t, f.admin.Create(t.Context(), node))
	t.Cleanup(func() { require.NoError(t, client.IgnoreNotFound(f.admin.Delete(context.Background(), node))) })
	f.update(config, func() { config.Spec.NodeCIDRs = nil })
	f.egress("k8s-app=kube-dns 5353/UDP")
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.168.7.7"}}
	require.NoError(t, f.admin.Status().Update(t.Context(), node))
	f.egress("192.168.7.7/32", "k8s-app=kube-dns 5353/UDP")
	require.NoError(t, f.admin.Delete(t.Context(), node))
	f.egress("k8s-app=kube-dns 5353/UDP")
}

func TestReferenceKeys(t *testing.T) {
	app := isolationtest.App(t, "isolation/testdata/services.in.yaml")
	require.Equal(t, []string{
		"Service backend/api", "Service default/headless", "Service default/headless-any-port", "Service default/headless-by-hand",
		"Service default/legacy", "Service default/no-endpoints", "Service default/redis",
	}, referenceKeys(isolation.ReferencesOf(app)))
	app.Spec.Implicit.DNS = ""
	require.Contains(t, referenceKeys(isolation.ReferencesOf(app)), "Entity DNS", "absent is Allow")
	app.Spec.Directions = []v1alpha1.Direction{v1alpha1.DirectionIngress}
	require.NotContains(t, referenceKeys(isolation.ReferencesOf(app)), "Entity DNS", "nothing is closed that DNS would need")
}

func TestOnlyAddressesOfNodesMatter(t *testing.T) {
	node := isolationtest.World(t, "isolation/testdata/world.yaml").Nodes[0]
	heartbeat := *node.DeepCopy()
	heartbeat.ResourceVersion = "2"
	heartbeat.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, LastHeartbeatTime: metav1.Now()}}
	require.True(t, sameAddresses(&node, &heartbeat))
	moved := *node.DeepCopy()
	moved.Status.Addresses[1].Address = "192.168.7.99"
	require.False(t, sameAddresses(&node, &moved))

	trimmed, err := trimNode(&node)
	require.NoError(t, err)
	nodes := func(node *corev1.Node) []networkingv1.NetworkPolicyIngressRule {
		app := isolationtest.App(t, "isolation/testdata/walk-through.in.yaml")
		app.Spec.Directions = []v1alpha1.Direction{v1alpha1.DirectionIngress}
		app.Spec.Ingress = []v1alpha1.IngressRule{{Name: "nodes", From: []v1alpha1.Peer{{Entity: v1alpha1.EntityNodes}}}}
		spec, _, problems := isolation.Compile(app, isolation.World{Config: &v1alpha1.IsolationConfigSpec{}, Nodes: []corev1.Node{*node}})
		require.Empty(t, problems)
		return spec.Ingress
	}
	require.Equal(t, nodes(&node), nodes(trimmed.(*corev1.Node)))
}
