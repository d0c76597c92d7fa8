// Package cluster gives tests a cluster that is real where it matters to a
// NetworkPolicy: an API server with etcd, nodes and pods as network namespaces
// with routes between them, and on each node the agent as it is shipped, a process
// that has nothing but its kubeconfig, its node's network and the rights of its
// role.
//
// What isn't there: kubelet, scheduler and controllers. The package itself binds
// pods to nodes, writes their status, and clears up after namespaces.
//
// A test needs KUBEBUILDER_ASSETS (see apiservertest), MOAT_BINARY, the built
// cmd/moat, and root; hack/conformance.sh provides them. Its methods fail the test
// that is given to them, and what they start ends with the test that made the
// cluster.
package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/ruleset"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// PodCIDRs are the prefixes of all pods' addresses, one per family.
const PodCIDRs = "10.244.0.0/16,fd00:10:244::/48"

// ServiceCIDRs are what the API server takes the addresses of Services from.
const ServiceCIDRs = "10.96.0.0/16,fd00:10:96::/112"

// Bounds of waits.
const (
	// eventually is long enough for a process to start on a busy machine.
	eventually = time.Minute
	poll       = 50 * time.Millisecond
)

// Options of a cluster.
type Options struct {
	// Nodes is their number: node-1, node-2, ….
	Nodes int

	// Primary is the family of the first of each pod's two addresses, which
	// is status.podIP.
	Primary ruleset.Family

	// APIServerFlags and EtcdFlags are further flags of the two, without their
	// dashes.
	APIServerFlags, EtcdFlags map[string]string
}

// Cluster is an API server, nodes and pods. Pods are added and removed by one
// goroutine at a time; everything else is safe for concurrent use.
type Cluster struct {
	// Client may do all.
	Client client.Client
	Nodes  []*Node
	// World is a host next to the nodes that is none of them.
	World *nodetest.Host

	primary ruleset.Family
	server  apiservertest.Server
	dir     string

	mu   sync.Mutex
	pods map[types.NamespacedName]*Pod
}

// New makes a cluster without pods. The agents aren't started.
func New(t testing.TB, options Options) *Cluster {
	t.Helper()
	nodetest.RequireKernel(t)
	c := &Cluster{
		primary: options.Primary,
		dir:     t.ArtifactDir(),
		pods:    map[types.NamespacedName]*Pod{},
	}
	c.server.Flags = map[string]string{"service-cluster-ip-range": ServiceCIDRs}
	maps.Copy(c.server.Flags, options.APIServerFlags)
	c.server.EtcdFlags = options.EtcdFlags
	t.Cleanup(c.server.Stop)
	c.Client = c.server.Admin(t)
	network := nodetest.NewNetwork(t, options.Nodes)
	c.World = network.AddHost(t)
	for i, host := range network.Nodes {
		c.Nodes = append(c.Nodes, c.newNode(t, fmt.Sprintf("node-%d", i+1), i+1, host))
	}
	return c
}

// Config is how Client connects.
func (c *Cluster) Config(t testing.TB) *rest.Config {
	t.Helper()
	return c.server.AdminConfig(t)
}

// AgentConfig is how who stands for the agents of many nodes connects: with the
// rights of their role, and a token that names no node. The admission policies that
// would refuse it aren't in force here.
func (c *Cluster) AgentConfig(t testing.TB) *rest.Config {
	t.Helper()
	return c.server.UnboundAgent(t)
}

// newNode makes a node's Node and lets the node reach the API server.
func (c *Cluster) newNode(t testing.TB, name string, number int, host *nodetest.Node) *Node {
	t.Helper()
	n := &Node{Node: host, Name: name, Underlay: nodetest.UnderlayAddrs(number), road: nodetest.NewRoad(), cluster: c}
	n.serveAPI(t)

	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name, corev1.LabelOSStable: "linux"}}}
	for _, cidr := range host.PodCIDRs() {
		object.Spec.PodCIDRs = append(object.Spec.PodCIDRs, cidr.String())
	}
	object.Spec.PodCIDR = object.Spec.PodCIDRs[0]
	require.NoError(t, c.Client.Create(t.Context(), object))
	object.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}}
	for _, addr := range n.Underlay {
		object.Status.Addresses = append(object.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: addr.String()})
	}
	object.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	require.NoError(t, c.Client.Status().Update(t.Context(), object))
	return n
}

// Node returns the node of a name.
func (c *Cluster) Node(t testing.TB, name string) *Node {
	t.Helper()
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	require.FailNow(t, "there is no node "+name)
	return nil
}

// Namespace makes a namespace.
func (c *Cluster) Namespace(t testing.TB, name string, labels map[string]string) {
	t.Helper()
	require.NoError(t, c.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}))
}

// Pod is a pod that serves its container ports.
type Pod struct {
	*nodetest.Host
	Node *Node
}

// Pod returns a pod that AddPod added, or nil.
func (c *Cluster) Pod(namespace, name string) *Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pods[types.NamespacedName{Namespace: namespace, Name: name}]
}

// AddPod runs a pod on a node and fills in the object as it is stored then: bound,
// running and ready, with an address of each family. A container port of TCP
// accepts connections, one of UDP echoes, and one of SCTP answers INITs.
func (c *Cluster) AddPod(t testing.TB, node *Node, object *corev1.Pod) *Pod {
	t.Helper()
	return c.StartPod(t, node, object, Start{})
}

// Start are the moments in the start of a pod; nil, nobody waits for one.
type Start struct {
	// Network is called when the pod has a network, before it has a link and its
	// addresses there.
	Network func(host *nodetest.Host, addrs []netip.Addr)
	// Sandbox is called when the pod has its addresses, before it serves: when a
	// container runtime tells its plugins of the sandbox.
	Sandbox func(addrs []netip.Addr)
}

// StartPod is AddPod, told what to do on the way.
func (c *Cluster) StartPod(t testing.TB, node *Node, object *corev1.Pod, start Start) *Pod {
	t.Helper()
	ctx := t.Context()
	require.NoError(t, c.Client.Create(ctx, object))
	binding := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: node.Name}}
	require.NoError(t, c.Client.SubResource("binding").Create(ctx, object, binding))

	addrs := node.nextAddrs()
	host := node.StartPod(t, func(host *nodetest.Host) {
		if start.Network != nil {
			start.Network(host, addrs)
		}
	}, texts(addrs)...)
	if start.Sandbox != nil {
		start.Sandbox(addrs)
	}
	pod := &Pod{Host: host, Node: node}
	serve(t, pod.Host, object)
	c.mu.Lock()
	c.pods[client.ObjectKeyFromObject(object)] = pod
	c.mu.Unlock()

	require.NoError(t, c.Client.Get(ctx, client.ObjectKeyFromObject(object), object))
	c.setRunning(object, node, addrs)
	require.NoError(t, c.Client.Status().Update(ctx, object))
	return pod
}

func serve(t testing.TB, host *nodetest.Host, object *corev1.Pod) {
	t.Helper()
	for _, container := range object.Spec.Containers {
		for _, port := range container.Ports {
			switch number := uint16(port.ContainerPort); port.Protocol {
			case corev1.ProtocolUDP:
				host.ServeUDP(t, number)
			case corev1.ProtocolSCTP:
				host.ServeSCTP(t, number)
			default:
				host.ServeTCP(t, number)
			}
		}
	}
}

// setRunning writes what a kubelet would.
func (c *Cluster) setRunning(object *corev1.Pod, node *Node, addrs []netip.Addr) {
	status := &object.Status
	status.Phase = corev1.PodRunning
	status.HostIP = node.Underlay[0].String()
	for _, addr := range node.Underlay {
		status.HostIPs = append(status.HostIPs, corev1.HostIP{IP: addr.String()})
	}
	for _, addr := range addrs {
		ip := corev1.PodIP{IP: addr.String()}
		if c.primary.Holds(addr) {
			status.PodIPs = append([]corev1.PodIP{ip}, status.PodIPs...)
		} else {
			status.PodIPs = append(status.PodIPs, ip)
		}
	}
	status.PodIP = status.PodIPs[0].IP
	for _, condition := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: condition, Status: corev1.ConditionTrue})
	}
}

// Crash kills "etcd" or "kube-apiserver" and returns what starts it again, with its
// data, and waits until it is ready.
func (c *Cluster) Crash(t testing.TB, program string) (restart func(testing.TB)) {
	t.Helper()
	return c.server.Crash(t, program)
}

// DeletePod removes a pod, first its network and then its object.
func (c *Cluster) DeletePod(t testing.TB, namespace, name string) {
	t.Helper()
	key := types.NamespacedName{Namespace: namespace, Name: name}
	c.mu.Lock()
	pod := c.pods[key]
	delete(c.pods, key)
	c.mu.Unlock()
	require.NotNil(t, pod, "there is no pod %s", key)
	pod.Node.RemovePod(t, pod.Host)
	object := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	require.NoError(t, c.Client.Delete(t.Context(), object, client.GracePeriodSeconds(0)))
}

func texts(addrs []netip.Addr) []string {
	var texts []string
	for _, addr := range addrs {
		texts = append(texts, addr.String())
	}
	return texts
}

// kubeconfigName is a file name for a user.
func kubeconfigName(user string) string {
	return strings.NewReplacer(":", "-", "/", "-").Replace(user) + ".kubeconfig"
}
