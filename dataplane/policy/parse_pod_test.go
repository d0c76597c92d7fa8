package policy_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/dataplane/policy"
)

func TestParsePod(t *testing.T) {
	var object corev1.Pod
	require.NoError(t, yaml.UnmarshalStrict([]byte(`
metadata: {namespace: default, name: web-1, labels: {role: web}}
spec:
  nodeName: node-1
  containers:
  - {name: a, ports: [{name: http, containerPort: 8080}, {containerPort: 9000}]}
  - {name: b, ports: [{name: dns, containerPort: 53, protocol: UDP}, {name: dns, containerPort: 53, protocol: TCP}]}
status: {phase: Running, podIPs: [{ip: "fd00::1"}, {ip: 10.0.0.1}]}
`), &object))

	pod := policy.ParsePod(&object)
	require.Equal(t, &policy.Pod{
		Namespace: "default",
		Name:      "web-1",
		Node:      "node-1",
		Labels:    labels.Set{"role": "web"},
		Addrs:     []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
		Ports: []policy.NamedPort{
			{Name: "dns", Protocol: policy.TCP, Number: 53},
			{Name: "dns", Protocol: policy.UDP, Number: 53},
			{Name: "http", Protocol: policy.TCP, Number: 8080},
		},
		Subject:    true,
		RawSockets: true,
	}, pod)
	require.Equal(t, types.NamespacedName{Namespace: "default", Name: "web-1"}, pod.Key())
}

func TestParsePodOwnsAddresses(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*corev1.Pod)
		addrs  []string
	}{
		"running":        {func(*corev1.Pod) {}, []string{"10.0.0.1"}},
		"pending":        {func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }, []string{"10.0.0.1"}},
		"phase unknown":  {func(p *corev1.Pod) { p.Status.Phase = corev1.PodUnknown }, []string{"10.0.0.1"}},
		"terminating":    {func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }, []string{"10.0.0.1"}},
		"succeeded":      {func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, nil},
		"failed":         {func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, nil},
		"hostNetwork":    {func(p *corev1.Pod) { p.Spec.HostNetwork = true }, nil},
		"no address yet": {func(p *corev1.Pod) { p.Status.PodIPs = nil }, nil},
		"unreadable":     {setIPs("10.0.0.300", "", "fd00::1"), []string{"fd00::1"}},
		"twice":          {setIPs("10.0.0.1", "10.0.0.1"), []string{"10.0.0.1"}},
		"IPv4 as IPv6":   {setIPs("::ffff:10.0.0.1"), []string{"10.0.0.1"}},
		"unspecified":    {setIPs("0.0.0.0", "::", "::ffff:0.0.0.0", "10.0.0.1"), []string{"10.0.0.1"}},
		"loopback":       {setIPs("127.0.0.1", "127.9.9.9", "::1", "fd00::1"), []string{"fd00::1"}},
		"multicast":      {setIPs("224.0.0.1", "239.255.255.255", "ff02::1"), nil},
		"broadcast":      {setIPs("255.255.255.255"), nil},
		"link-local":     {setIPs("169.254.0.1", "fe80::1", "fe80::1%eth0"), nil},
		"with a zone":    {setIPs("fd00::1%eth0"), []string{"fd00::1"}},
		"class E":        {setIPs("240.0.0.1"), []string{"240.0.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			object := &corev1.Pod{}
			object.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.1"}}
			test.change(object)

			var addrs []string
			for _, addr := range policy.ParsePod(object).Addrs {
				addrs = append(addrs, addr.String())
			}
			require.Equal(t, test.addrs, addrs)
		})
	}
}

// A hostNetwork pod shows the addresses of its node, until it has ended.
func TestParsePodKnowsAddressesOfNodes(t *testing.T) {
	object := &corev1.Pod{}
	setIPs("192.0.2.2", "0.0.0.0", "fd00::2")(object)
	require.Empty(t, policy.ParsePod(object).NodeAddrs)
	object.Spec.HostNetwork = true
	pod := policy.ParsePod(object)
	require.Equal(t, []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("fd00::2")}, pod.NodeAddrs)
	require.Empty(t, pod.Unusable)
	require.False(t, pod.Terminating)
	object.DeletionTimestamp = &metav1.Time{}
	require.True(t, policy.ParsePod(object).Terminating)
	object.Status.Phase = corev1.PodFailed
	require.Empty(t, policy.ParsePod(object).NodeAddrs)
}

// What is left out is named, with the reason.
func TestParsePodNamesUnusableAddresses(t *testing.T) {
	object := &corev1.Pod{}
	require.Empty(t, policy.ParsePod(object).Unusable)
	setIPs("0.0.0.0", "10.0.0.1", "fe80::1%eth0", "ten")(object)
	require.Equal(t, "0.0.0.0 (unspecified), fe80::1%eth0 (link-local), ten (can't be read)", policy.ParsePod(object).Unusable)
}

func setIPs(ips ...string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Status.PodIPs = nil
		for _, ip := range ips {
			pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: ip})
		}
	}
}

func TestParsePodWithoutTrafficIsNoSubject(t *testing.T) {
	p := parse(t, `podSelector: {}`)
	for name, change := range map[string]func(*corev1.Pod){
		"hostNetwork": func(p *corev1.Pod) { p.Spec.HostNetwork = true },
		"succeeded":   func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded },
		"failed":      func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed },
	} {
		t.Run(name, func(t *testing.T) {
			object := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default"}}
			require.True(t, p.Selects(policy.ParsePod(object)))
			change(object)
			require.False(t, p.Selects(policy.ParsePod(object)))
		})
	}
}

func TestResolveNamedPorts(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	object := &corev1.Pod{Spec: corev1.PodSpec{
		Containers: []corev1.Container{
			{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {Name: "zero"}, {Name: "large", ContainerPort: 65536}}},
			{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 9090}, {Name: "odd", ContainerPort: 1, Protocol: "DCCP"}}},
		},
		InitContainers: []corev1.Container{
			{Ports: []corev1.ContainerPort{{Name: "setup", ContainerPort: 7000}}},
			{Ports: []corev1.ContainerPort{{Name: "proxy", ContainerPort: 7001, Protocol: corev1.ProtocolSCTP}}, RestartPolicy: &always},
		},
	}}
	pod := policy.ParsePod(object)

	for _, test := range []struct {
		name     string
		protocol policy.Protocol
		number   uint16
		served   bool
	}{
		{"http", policy.TCP, 8080, true}, // the first of two
		{"http", policy.UDP, 0, false},
		{"proxy", policy.SCTP, 7001, true}, // a sidecar serves as long as the pod lives
		{"proxy", policy.TCP, 0, false},
		{"setup", policy.TCP, 0, false}, // an init container has ended when traffic comes
		{"zero", policy.TCP, 0, false},
		{"large", policy.TCP, 0, false},
		{"odd", policy.TCP, 0, false},
		{"", policy.TCP, 0, false},
	} {
		number, served := pod.Resolve(test.name, test.protocol)
		require.Equal(t, test.served, served, "%s/%d", test.name, test.protocol)
		require.Equal(t, test.number, number, "%s/%d", test.name, test.protocol)
	}
}
