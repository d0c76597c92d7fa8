package dataplane

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/policy"
)

// Probe timing. An answer between namespaces takes well under a millisecond, so a
// silence of silentAfter is a drop; where an answer is due, a busy machine gets
// answerWithin.
const (
	silentAfter  = 150 * time.Millisecond
	answerWithin = 3 * time.Second
)

func patience(want bool) time.Duration {
	if want {
		return answerWithin
	}
	return silentAfter
}

// scene is a node with pods and remote hosts, the model of the cluster, and the
// enforcer of the node.
type scene struct {
	t        *testing.T
	node     *nodetest.Node
	model    *model
	enforcer *enforcer
	hosts    map[string]*nodetest.Host
	pods     map[string]*corev1.Pod
	policies map[string]*networkingv1.NetworkPolicy
	labels   policy.Namespaces
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
		model:    newModel(thisNode),
		enforcer: newEnforcer(backend),
		hosts:    map[string]*nodetest.Host{},
		pods:     map[string]*corev1.Pod{},
		policies: map[string]*networkingv1.NetworkPolicy{},
		labels:   policy.Namespaces{},
	}
	t.Cleanup(func() {
		if s.enforcer.sets != nil {
			s.enforcer.sets.Close()
		}
	})
	return s
}

func (s *scene) namespace(name string, labels map[string]string) {
	if labels == nil {
		labels = map[string]string{}
	}
	labels["kubernetes.io/metadata.name"] = name
	s.labels[name] = labels
	s.model.setNamespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
}

// pod adds a pod with its host. A pod of this node has an address in
// 10.244.1.0/24.
func (s *scene) pod(namespace, name string, labels map[string]string, addrs ...string) {
	s.t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}}
	for _, addr := range addrs {
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: addr})
	}
	pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 80}}}}
	if strings.HasPrefix(addrs[0], "10.244.1.") {
		pod.Spec.NodeName = thisNode
		s.host(name, s.node.AddPod(s.t, addrs...))
	} else {
		pod.Spec.NodeName = "elsewhere"
		s.host(name, s.node.AddRemote(s.t, addrs...))
	}
	s.update(pod)
}

func (s *scene) update(pod *corev1.Pod) {
	s.pods[pod.Name] = pod
	s.model.setPod(pod)
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
	np.Generation = 1
	s.policies[np.Name] = np
	s.model.setPolicy(np)
}

func (s *scene) remove(name string) {
	s.model.deletePolicy(s.policies[name])
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
	return runIn(s.t, s.node, program, args...)
}

// runIn runs a program in the node and returns its output.
func runIn(t *testing.T, node *nodetest.Node, program string, args ...string) string {
	t.Helper()
	var output []byte
	err := node.Do(func() (err error) {
		output, err = exec.Command(program, args...).CombinedOutput()
		return err
	})
	require.NoError(t, err, "%s %v: %s", program, args, output)
	return string(output)
}

// cluster is the model that the oracle judges by.
func (s *scene) cluster() *policy.Cluster {
	c := &policy.Cluster{Namespaces: s.labels}
	for _, pod := range s.pods {
		c.Pods = append(c.Pods, policy.ParsePod(pod))
	}
	for _, np := range s.policies {
		c.Policies = append(c.Policies, policy.ParseNetworkPolicy(np))
	}
	return c
}

// probe is one flow between two hosts.
type probe struct {
	from, to string
	flow     policy.Flow
}

func (p probe) String() string {
	return fmt.Sprintf("%s -> %s (%s -> %s, protocol %d, port %d)", p.from, p.to, p.flow.Source, p.flow.Destination, p.flow.Protocol, p.flow.Port)
}

// probes lists flows from each host to each, over every family, protocol and
// port.
func (s *scene) probes() []probe {
	var probes []probe
	for from, source := range s.hosts {
		for to, destination := range s.hosts {
			for _, addr := range destination.Addrs {
				own := source.Addr(addr)
				if !own.IsValid() {
					continue
				}
				add := func(protocol policy.Protocol, port uint16) {
					probes = append(probes, probe{from, to, policy.Flow{Source: own, Destination: addr, Protocol: protocol, Port: port}})
				}
				for _, port := range servedPorts {
					add(policy.TCP, port)
				}
				add(policy.UDP, 53)
				if addr.Is4() {
					add(policy.ICMP, 0)
				} else {
					add(policy.ICMPv6, 0)
				}
			}
		}
	}
	return probes
}

// send reports whether the probe is answered. want is what is expected.
func (s *scene) send(p probe, want bool) bool {
	from, to := s.hosts[p.from], p.flow.Destination
	switch p.flow.Protocol {
	case policy.TCP:
		return from.TCP(to, p.flow.Port, patience(want))
	case policy.UDP:
		return from.UDP(to, p.flow.Port, patience(want))
	default:
		return from.Ping(to, patience(want))
	}
}

// requireAgreement sends every probe and compares its fate with the oracle's
// verdict. Only this node enforces, so policies of other nodes' pods don't count.
func (s *scene) requireAgreement() {
	s.t.Helper()
	// A probe must not pass as part of the connection of an earlier one that had
	// the same ports.
	require.NoError(s.t, s.node.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
	cluster := s.cluster()
	probes := s.probes()
	wrong := make([]string, len(probes))
	var wait sync.WaitGroup
	slots := make(chan struct{}, 64)
	for i, p := range probes {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			want := s.enforcedHere(p, cluster.Evaluate(p.flow))
			if passed := s.send(p, want); passed != want {
				wrong[i] = fmt.Sprintf("%s: passed=%t, want %t", p, passed, want)
			}
		})
	}
	wait.Wait()
	wrong = slices.DeleteFunc(wrong, func(text string) bool { return text == "" })
	require.Empty(s.t, wrong, "%d of %d probes\n%s", len(wrong), len(probes), s.dump())
}

func (s *scene) enforcedHere(p probe, v policy.Verdict) bool {
	here := func(name string) bool {
		pod := s.pods[name]
		return pod != nil && pod.Spec.NodeName == thisNode
	}
	return (!here(p.from) || v.Egress.Allowed()) && (!here(p.to) || v.Ingress.Allowed())
}

func (s *scene) dump() string {
	return s.run(string(s.enforcer.backend)+"-save", "-t", "filter") + s.run("ipset", "save")
}

func (s *scene) requireTCP(want bool, from, to string, port uint16) {
	s.t.Helper()
	addr := s.hosts[to].Addrs[0]
	require.Equal(s.t, want, s.hosts[from].TCP(addr, port, patience(want)), "TCP %s -> %s:%d\n%s", from, to, port, s.dump())
}

func (s *scene) requirePing(want bool, from, to string) {
	s.t.Helper()
	addr := s.hosts[to].Addrs[0]
	require.Equal(s.t, want, s.hosts[from].Ping(addr, patience(want)), "ping %s -> %s\n%s", from, to, s.dump())
}

// backends runs a test with each backend.
func backends(t *testing.T, test func(t *testing.T, backend iptables.Backend)) {
	for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
		t.Run(string(backend), func(t *testing.T) { test(t, backend) })
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

// The scene that every user knows.
func TestWalkThrough(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.sync()
		s.requirePing(true, "busybox", "test-np")

		s.apply(walkThrough)
		s.sync()
		s.requirePing(true, "busybox", "test-np")
		s.label("test-np", map[string]string{"role": "db"})
		s.sync()
		s.requirePing(false, "busybox", "test-np")
		s.requirePing(false, "neighbour", "test-np")
		s.requireTCP(true, "busybox", "test-np", 80)
		s.requireTCP(false, "busybox", "test-np", 81)
		s.requirePing(true, "project", "test-np")
		s.requirePing(true, "office", "test-np")
		s.requirePing(false, "excepted", "test-np")
		s.requireTCP(true, "test-np", "upstream", 5978)
		s.requireTCP(false, "test-np", "upstream", 80)
		s.requireTCP(false, "test-np", "busybox", 5978)
		s.requirePing(true, "test-np", "test-np")

		s.label("busybox", map[string]string{"role": "frontend"})
		s.sync()
		s.requirePing(true, "busybox", "test-np")
		s.requireAgreement()

		s.remove("test-network-policy")
		s.sync()
		s.requirePing(true, "neighbour", "test-np")
		s.requireAgreement()
	})
}

// The dump that docs/dataplane.md explains is what the kernel holds.
func TestTheDocumentedDumpIsReal(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	s.sync()
	text, err := os.ReadFile("../docs/dataplane.md")
	require.NoError(t, err)
	dump := s.dump()
	documented := regexp.MustCompile(`(?m)^-A .*?( +\([0-9]+\))?$`).FindAllString(string(text), -1)
	require.Greater(t, len(documented), 15)
	for _, line := range documented {
		rule, _, _ := strings.Cut(line, "   ")
		require.Contains(t, dump, strings.TrimSpace(rule)+"\n")
	}
}

func TestHostReachesItsOwnPods(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	s.sync()
	addr := netip.MustParseAddr("10.244.1.10")
	require.True(t, s.node.Ping(addr, answerWithin), "the kubelet's probes always pass")
	require.False(t, s.hosts["test-np"].Ping(nodetest.NodeAddr4, silentAfter), "pod -> own node passes the pod's egress rules")
	require.True(t, s.hosts["neighbour"].Ping(nodetest.NodeAddr4, answerWithin))
}

// A pod that is isolated but that the rules don't know must be closed: this is
// what stands between two steps, and after a restore that failed.
func TestAnIsolatedPodWithoutRulesIsClosed(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	s.sync()
	s.run("ipset", "add", "moat-4-ingress", "10.244.1.11")
	s.requirePing(false, "busybox", "neighbour")
	s.run("ipset", "del", "moat-4-ingress", "10.244.1.11")
	s.requirePing(true, "busybox", "neighbour")
}

func TestAFailedRestoreClosesNewlyIsolatedPods(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.sync()
	for _, runner := range s.enforcer.runners {
		require.NotNil(t, runner)
	}
	s.breakRestore(true)
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	require.ErrorContains(t, s.trySync(), "restoring the filter table")
	s.requirePing(false, "busybox", "test-np")
	s.requirePing(true, "busybox", "neighbour")

	s.breakRestore(false)
	s.sync()
	s.requireAgreement()
}

// breakRestore puts programs in front of the real ones that refuse to restore.
func (s *scene) breakRestore(broken bool) {
	s.t.Helper()
	if broken {
		dir := s.t.TempDir()
		for _, name := range []string{"iptables-nft-restore", "ip6tables-nft-restore"} {
			require.NoError(s.t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho broken >&2\nexit 1\n"), 0o755))
		}
		s.t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	} else {
		_, rest, _ := strings.Cut(os.Getenv("PATH"), ":")
		s.t.Setenv("PATH", rest)
	}
	s.enforcer.sets.Close()
	s.enforcer.sets = nil // finds its programs again
}

// Whatever somebody does to Moat's state comes back at the next full pass, and
// what isn't Moat's stays as it is.
func TestRepair(t *testing.T) {
	damage := map[string]func(s *scene, iptablesCommand string){
		"hook deleted": func(s *scene, command string) { s.run(command, "-D", "FORWARD", "-j", "MOAT-FORWARD") },
		"hook not first": func(s *scene, command string) {
			s.run(command, "-I", "FORWARD", "1", "-s", "10.244.0.0/16", "-j", "ACCEPT")
		},
		"hook twice":    func(s *scene, command string) { s.run(command, "-A", "FORWARD", "-j", "MOAT-FORWARD") },
		"chain flushed": func(s *scene, command string) { s.run(command, "-F", "MOAT-INGRESS") },
		"table flushed": func(s *scene, command string) { s.run(command, "-F"); s.run(command, "-X") },
		"rule added":    func(s *scene, command string) { s.run(command, "-I", "MOAT-FORWARD", "1", "-j", "ACCEPT") },
		"set flushed":   func(s *scene, _ string) { s.run("ipset", "flush", "moat-4-ingress") },
		"set polluted":  func(s *scene, _ string) { s.run("ipset", "add", "moat-4-ingress", "10.244.1.11") },
		"stale chain":   func(s *scene, command string) { s.run(command, "-N", "MOAT-OLD") },
	}
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.label("test-np", map[string]string{"role": "db"})
		s.apply(walkThrough)
		s.sync()
		healthy := withoutCounters(s.dump())
		for name, harm := range damage {
			t.Run(name, func(t *testing.T) {
				harm(s, string(backend))
				s.enforcer.distrust()
				s.sync()
				s.requirePing(false, "neighbour", "test-np")
				s.requirePing(true, "busybox", "neighbour")
				if name == "hook not first" {
					s.run(string(backend), "-D", "FORWARD", "-s", "10.244.0.0/16", "-j", "ACCEPT")
				}
				require.Equal(t, healthy, withoutCounters(s.dump()))
			})
		}
	})
}

// withoutCounters makes two dumps comparable: elements of a set come in an order
// that depends on its history.
func withoutCounters(dump string) string {
	var kept []string
	for line := range strings.Lines(dump) {
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ":") || strings.HasPrefix(line, "create ") {
			continue
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "")
}

// Rules that aren't Moat's are the same bytes before, during and after.
func TestNeighboursAreUntouched(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		command := string(backend)
		s.run(command, "-N", "FLANNEL-FWD")
		s.run(command, "-A", "FORWARD", "-m", "comment", "--comment", "flanneld forward", "-j", "FLANNEL-FWD")
		s.run(command, "-A", "FLANNEL-FWD", "-s", "10.244.0.0/16", "-m", "comment", "--comment", "it's \"quoted\"", "-j", "ACCEPT")
		s.run(command, "-t", "nat", "-A", "POSTROUTING", "-s", "10.244.0.0/16", "!", "-d", "224.0.0.0/4", "-j", "MASQUERADE")
		s.run("ipset", "create", "foreign", "hash:net")
		s.run("ipset", "add", "foreign", "10.9.0.0/16")
		before := foreignLines(s.run(command + "-save"))

		s.label("test-np", map[string]string{"role": "db"})
		for range 20 {
			s.apply(walkThrough)
			s.sync()
			require.Equal(t, before, foreignLines(s.run(command+"-save")))
			s.requirePing(false, "neighbour", "test-np")
			s.remove("test-network-policy")
			s.enforcer.distrust()
			s.sync()
		}
		require.Equal(t, before, foreignLines(s.run(command+"-save")))
		require.Contains(t, s.run("ipset", "save", "foreign"), "10.9.0.0/16")
	})
}

func foreignLines(dump string) string {
	var kept []string
	for line := range strings.Lines(dump) {
		if strings.HasPrefix(line, "#") || strings.Contains(line, compile.ChainPrefix) {
			continue
		}
		if name, ok := strings.CutPrefix(line, ":"); ok {
			line, _, _ = strings.Cut(name, "[") // packet counters move
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "")
}

// A fresh enforcer finds the state of the one before it and changes nothing.
func TestRestartChangesNothing(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.label("test-np", map[string]string{"role": "db"})
		s.apply(walkThrough)
		s.sync()
		s.requirePing(false, "neighbour", "test-np")
		before := s.run(string(backend)+"-save", "-c", "-t", "filter")
		require.Contains(t, before, "[1:28] -A MOAT-I-", "the dropped ping is counted")

		s.enforcer.sets.Close()
		s.enforcer = newEnforcer(backend)
		s.sync()
		after := s.run(string(backend)+"-save", "-c", "-t", "filter")
		require.Equal(t, withoutCounters(before), withoutCounters(after), "counters too: no chain was rewritten")
	})
}

func TestDetectFollowsTheNode(t *testing.T) {
	detect := func(s *scene) (backend iptables.Backend) {
		require.NoError(t, s.node.Do(func() error {
			backend = iptables.Detect(context.Background())
			return nil
		}))
		return backend
	}
	s := newScene(t, "")
	require.Equal(t, iptables.NFT, detect(s), "a node without rules")
	s.run("iptables-legacy", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT")
	require.Equal(t, iptables.Legacy, detect(s), "kubelet uses legacy")
	s.run("iptables-nft", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT")
	require.Equal(t, iptables.NFT, detect(s), "kubelet went over to nft, its old chain is left")

	s = newScene(t, "")
	detect(s)
	require.NotContains(t, s.run("iptables-nft-save"), "iptables-legacy tables present", "to look leaves no trace")
}

func TestBridgeFilterIsSwitchedOn(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	a := &Agent{options: Options{SysctlDir: "/proc/sys/net"}}
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	s.sync()
	require.NoError(t, s.node.Do(func() error { return nodetest.SetSysctl("bridge/bridge-nf-call-iptables", "0") }))
	s.requirePing(true, "neighbour", "test-np")

	require.NoError(t, s.node.Do(a.bridgeFilter))
	s.requirePing(false, "neighbour", "test-np")

	a.options.SysctlDir = t.TempDir()
	require.ErrorContains(t, s.node.Do(a.bridgeFilter), "load the kernel module br_netfilter")
}

// What keeps an agent from its work is named, with the way out.
func TestMissingRequirementsAreNamed(t *testing.T) {
	t.Run("no NET_ADMIN", func(t *testing.T) {
		s := walkThroughScene(t, iptables.NFT)
		err := s.node.Do(func() error {
			if err := dropNetAdmin(); err != nil {
				return err
			}
			return s.enforcer.sync(context.Background(), s.model)
		})
		require.ErrorContains(t, err, "capability NET_ADMIN")
		require.Equal(t, v1alpha1.NodeReasonPermissionDenied, reasonOf(err))
	})
	t.Run("no iptables", func(t *testing.T) {
		s := walkThroughScene(t, iptables.NFT)
		t.Setenv("PATH", t.TempDir())
		err := s.trySync()
		require.ErrorContains(t, err, "finding iptables-nft: iptables is not installed")
		require.Equal(t, v1alpha1.NodeReasonIptablesMissing, reasonOf(err))
	})
}

// dropNetAdmin takes the capability from the calling thread.
func dropNetAdmin() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	data[0].Permitted &^= 1 << unix.CAP_NET_ADMIN
	return unix.Capset(&header, &data[0])
}
