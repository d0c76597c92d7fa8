package dataplane

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/node/modeltest"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/policy"
)

// scene is a node with pods and remote hosts, the model of the cluster, and the
// enforcer of the node.
type scene struct {
	t        *testing.T
	node     *nodetest.Node
	model    *node.Model
	enforcer *enforcer
	hosts    map[string]*nodetest.Host
	pods     map[string]*corev1.Pod
	policies map[string]*networkingv1.NetworkPolicy
	labels   policy.Namespaces
	inspects chan struct{} // makes a running agent look at the kernel
	// namespaces are those of labels, as objects.
	namespaces []*corev1.Namespace
}

const thisNode = "node-1"

// servedPorts are open on every host.
var servedPorts = []uint16{80, 81, 5978}

func newScene(t *testing.T, backend iptables.Backend) *scene {
	t.Helper()
	nodetest.RequireKernel(t)
	s := &scene{
		t:        t,
		node:     nodetest.NewNode(t),
		model:    node.New(thisNode),
		enforcer: newEnforcer(backend),
		hosts:    map[string]*nodetest.Host{},
		pods:     map[string]*corev1.Pod{},
		policies: map[string]*networkingv1.NetworkPolicy{},
		labels:   policy.Namespaces{},
		inspects: make(chan struct{}),
	}
	t.Cleanup(func() { s.enforcer.close() })
	return s
}

func (s *scene) namespace(name string, labels map[string]string) {
	if labels == nil {
		labels = map[string]string{}
	}
	labels["kubernetes.io/metadata.name"] = name
	s.labels[name] = labels
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	s.namespaces = append(s.namespaces, namespace)
	modeltest.See(s.model, namespace)
}

// pod adds a pod with its host. A pod of this node has an address in
// 10.244.1.0/24.
func (s *scene) pod(namespace, name string, labels map[string]string, addrs ...string) {
	s.t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}}
	for _, addr := range addrs {
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: addr})
	}
	pod.Spec.Containers = containersServing(80)
	if strings.HasPrefix(addrs[0], "10.244.1.") {
		pod.Spec.NodeName = thisNode
		s.host(name, s.node.AddPod(s.t, addrs...))
	} else {
		pod.Spec.NodeName = "elsewhere"
		s.host(name, s.node.AddRemote(s.t, addrs...))
	}
	s.update(pod)
}

// containersServing has "web" (TCP) and "signal" (SCTP) as names of a port.
func containersServing(port int32) []corev1.Container {
	return []corev1.Container{{Ports: []corev1.ContainerPort{
		{Name: "web", ContainerPort: port},
		{Name: "signal", ContainerPort: port, Protocol: corev1.ProtocolSCTP},
	}}}
}

func (s *scene) update(pod *corev1.Pod) {
	s.pods[pod.Name] = pod
	modeltest.See(s.model, pod)
}

// label sets labels of a pod.
func (s *scene) label(name string, labels map[string]string) {
	pod := s.pods[name].DeepCopy()
	pod.Labels = labels
	s.update(pod)
}

func (s *scene) host(name string, host *nodetest.Host) {
	for _, port := range servedPorts {
		host.ServeTCP(s.t, port)
		host.ServeSCTP(s.t, port)
	}
	host.ServeUDP(s.t, 53)
	s.hosts[name] = host
}

// apply reads a NetworkPolicy from YAML, as the API server would store it.
func (s *scene) apply(text string) {
	s.t.Helper()
	np := &networkingv1.NetworkPolicy{}
	require.NoError(s.t, yaml.UnmarshalStrict([]byte(text), np))
	if np.Namespace == "" {
		np.Namespace = "default"
	}
	np.UID = types.UID(np.Namespace + "/" + np.Name)
	np.Generation = max(1, np.Generation)
	s.policies[np.Name] = np
	modeltest.See(s.model, np)
}

func (s *scene) remove(name string) {
	modeltest.Lose(s.model, s.policies[name])
	delete(s.policies, name)
}

// sync makes one pass of the enforcer in the node.
func (s *scene) sync() {
	s.t.Helper()
	require.NoError(s.t, s.trySync())
}

func (s *scene) trySync() error {
	return s.node.Do(func() error { return s.enforcer.sync(context.Background(), s.model) })
}

func (s *scene) run(program string, args ...string) string {
	s.t.Helper()
	return runIn(s.t, s.node.Host, program, args...)
}

// findProgram returns the path of a program that is installed wherever the kernel is tested.
func findProgram(t *testing.T, name string) string {
	t.Helper()
	nodetest.RequireKernel(t)
	path, err := exec.LookPath(name)
	require.NoError(t, err)
	return path
}

// runIn runs a program on a host and returns its output.
func runIn(t *testing.T, host *nodetest.Host, program string, args ...string) string {
	t.Helper()
	var output []byte
	err := host.Do(func() (err error) {
		cmd := exec.Command(program, args...)
		// The lock of the legacy backend is the machine's, and only programs that
		// are told to wait for it do.
		// withoutExtension is for the agent's programs.
		others := slices.DeleteFunc(os.Environ(), func(variable string) bool { return strings.HasPrefix(variable, "XTABLES_LIBDIR=") })
		cmd.Env = append(others, "XTABLES_LOCKFILE="+filepath.Join(t.TempDir(), "xtables.lock"))
		output, err = cmd.CombinedOutput()
		return err
	})
	require.NoError(t, err, "%s %v: %s", program, args, output)
	return string(output)
}

// backends runs a test with each backend, side by side.
func backends(t *testing.T, test func(t *testing.T, backend iptables.Backend)) {
	for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
		t.Run(string(backend), func(t *testing.T) {
			t.Parallel()
			test(t, backend)
		})
	}
}

const walkThrough = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: test-network-policy, namespace: default}
spec:
  podSelector: {matchLabels: {role: db}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}
    - namespaceSelector: {matchLabels: {project: myproject}}
    - podSelector: {matchLabels: {role: frontend}}
  - ports:
    - {protocol: TCP, port: 80}
  egress:
  - to:
    - ipBlock: {cidr: 10.0.0.0/24}
    ports:
    - {protocol: TCP, port: 5978}
`

func walkThroughScene(t *testing.T, backend iptables.Backend) *scene {
	t.Helper()
	s := newScene(t, backend)
	s.namespace("default", nil)
	s.namespace("ours", map[string]string{"project": "myproject"})
	s.pod("default", "test-np", nil, "10.244.1.10", "fd00:10:244:1::10")
	s.pod("default", "neighbour", nil, "10.244.1.11", "fd00:10:244:1::11")
	s.pod("default", "busybox", nil, "10.244.2.10", "fd00:10:244:2::10")
	s.pod("ours", "project", nil, "10.244.2.11", "fd00:10:244:2::11")
	s.host("office", s.node.AddRemote(t, "172.17.0.10"))
	s.host("excepted", s.node.AddRemote(t, "172.17.1.10"))
	s.host("upstream", s.node.AddRemote(t, "10.0.0.10"))
	return s
}
