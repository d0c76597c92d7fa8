package policy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// ParsePod reads a pod. It can't fail: an address that no pod can have is left
// out and named in Unusable, and a pod without address has no traffic.
func ParsePod(pod *corev1.Pod) *Pod {
	p := &Pod{
		Namespace: pod.Namespace,
		Name:      pod.Name,
		Node:      pod.Spec.NodeName,
		Labels:    pod.Labels,
		Subject:   !pod.Spec.HostNetwork && !ended(pod),
	}
	if pod.Spec.HostNetwork && !ended(pod) {
		p.NodeAddrs, _ = podAddrs(pod)
		p.Terminating = pod.DeletionTimestamp != nil
	}
	if !p.Subject {
		return p
	}
	p.Terminating = pod.DeletionTimestamp != nil
	p.Addrs, p.Unusable = podAddrs(pod)
	p.Ports = namedPorts(pod)
	p.RawSockets = rawSockets(pod)
	return p
}

// ended reports whether the pod's containers have stopped for good: its address
// may belong to another pod already.
func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// namedPorts lists the ports of all containers, restartable init containers
// (sidecars) included. The sort is stable: of two ports with one name the first
// stays first.
func namedPorts(pod *corev1.Pod) []NamedPort {
	var ports []NamedPort
	add := func(c *corev1.Container) {
		for _, port := range c.Ports {
			protocol, err := parseProtocol(port.Protocol)
			if port.Name != "" && err == nil && port.ContainerPort > 0 && port.ContainerPort <= 65535 {
				ports = append(ports, NamedPort{port.Name, protocol, uint16(port.ContainerPort)})
			}
		}
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	slices.SortStableFunc(ports, func(a, b NamedPort) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Protocol, b.Protocol))
	})
	return ports
}

// ParseNetworkPolicy reads a NetworkPolicy. The API server validates what it
// stores, but an object may be older than the validation: what can't be read is
// closed and listed in Unreadable.
func ParseNetworkPolicy(np *networkingv1.NetworkPolicy) *Policy {
	p := &Policy{
		Namespace:  np.Namespace,
		Name:       np.Name,
		UID:        np.UID,
		Generation: np.Generation,
	}
	if !np.CreationTimestamp.IsZero() {
		p.Created = np.CreationTimestamp.Unix()
	}
	r := reader{policy: p, podPeers: map[string]struct{}{}}
	p.Selector = r.subject(&np.Spec.PodSelector)
	p.Isolates = r.isolates(&np.Spec)
	for i, rule := range np.Spec.Ingress {
		p.Rules[Ingress] = append(p.Rules[Ingress], r.rule(fmt.Sprintf("spec.ingress[%d]", i), "from", rule.From, rule.Ports))
	}
	for i, rule := range np.Spec.Egress {
		p.Rules[Egress] = append(p.Rules[Egress], r.rule(fmt.Sprintf("spec.egress[%d]", i), "to", rule.To, rule.Ports))
	}
	return p
}

// maxPodPeers bounds the different pod selectors of one policy. Each becomes a set
// in the kernel, which has room for some 65,000 in all (ip_set_max in
// net/netfilter/ipset/ip_set_core.c): no single policy may use it up.
const maxPodPeers = 5000

// reader reads the parts of one policy and notes the unreadable ones.
type reader struct {
	policy     *Policy
	podPeers   map[string]struct{} // keys
	unreadable int                 // parts
}

// subject reads the policy's own selector. A requirement that can't be read is
// left out, so that the policy selects, and closes, rather more pods.
func (r *reader) subject(s *metav1.LabelSelector) labels.Selector {
	if selector, err := metav1.LabelSelectorAsSelector(s); err == nil {
		return selector
	}
	selector := labels.Everything()
	for _, part := range splitRequirements(s) {
		one, err := metav1.LabelSelectorAsSelector(&part)
		if err != nil {
			r.note("spec.podSelector", err)
			continue
		}
		requirements, _ := one.Requirements()
		selector = selector.Add(requirements...)
	}
	return selector
}

// readSelector reads a peer's selector. Of several errors it returns the same one
// every time: an error is reported, and each change of a report costs a write.
func readSelector(s *metav1.LabelSelector) (labels.Selector, error) {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err == nil {
		return selector, nil
	}
	for _, part := range splitRequirements(s) {
		if _, first := metav1.LabelSelectorAsSelector(&part); first != nil {
			return nil, first
		}
	}
	return nil, err
}

// splitRequirements returns one selector for each requirement, in a fixed order.
func splitRequirements(s *metav1.LabelSelector) []metav1.LabelSelector {
	var parts []metav1.LabelSelector
	for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		parts = append(parts, metav1.LabelSelector{MatchLabels: map[string]string{key: s.MatchLabels[key]}})
	}
	for _, expression := range s.MatchExpressions {
		parts = append(parts, metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{expression}})
	}
	return parts
}

// isolates reads policyTypes. The API server sets a default when an object is written. An
// object without the field gets the same default here.
func (r *reader) isolates(spec *networkingv1.NetworkPolicySpec) (isolates [Directions]bool) {
	if len(spec.PolicyTypes) == 0 {
		return [Directions]bool{Ingress: true, Egress: len(spec.Egress) > 0}
	}
	for i, t := range spec.PolicyTypes {
		switch t {
		case networkingv1.PolicyTypeIngress:
			isolates[Ingress] = true
		case networkingv1.PolicyTypeEgress:
			isolates[Egress] = true
		default:
			isolates = [Directions]bool{true, true}
			r.note(fmt.Sprintf("spec.policyTypes[%d]", i), fmt.Errorf("unknown policy type %q", t))
		}
	}
	return isolates
}

func (r *reader) rule(field, peerField string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) Rule {
	rule := Rule{AnyPeer: len(peers) == 0, AnyPort: len(ports) == 0}
	for i := range peers {
		peer, err := r.peer(&peers[i])
		if err != nil {
			r.note(fmt.Sprintf("%s.%s[%d]", field, peerField, i), err)
			continue
		}
		rule.Peers = append(rule.Peers, peer)
	}
	for i := range ports {
		port, err := r.port(&ports[i])
		if err != nil {
			r.note(fmt.Sprintf("%s.ports[%d]", field, i), err)
			continue
		}
		rule.Ports = append(rule.Ports, port)
	}
	return rule
}

func (r *reader) peer(np *networkingv1.NetworkPolicyPeer) (Peer, error) {
	if r.gaveUp() {
		return Peer{}, errGaveUp
	}
	if np.IPBlock != nil {
		if np.PodSelector != nil || np.NamespaceSelector != nil {
			return Peer{}, errors.New("ipBlock can't be combined with a selector")
		}
		block, err := parseBlock(np.IPBlock)
		return Peer{Block: block}, err
	}
	if np.PodSelector == nil && np.NamespaceSelector == nil {
		return Peer{}, errors.New("a peer needs a podSelector, a namespaceSelector or an ipBlock")
	}
	pods := PodPeer{Pods: labels.Everything()}
	var err error
	if np.PodSelector != nil {
		if pods.Pods, err = readSelector(np.PodSelector); err != nil {
			return Peer{}, fmt.Errorf("podSelector: %w", err)
		}
	}
	if np.NamespaceSelector == nil {
		pods.Namespace = r.policy.Namespace
	} else if pods.Namespaces, err = readSelector(np.NamespaceSelector); err != nil {
		return Peer{}, fmt.Errorf("namespaceSelector: %w", err)
	}
	return Peer{Pods: &pods}, r.countPodPeer(&pods)
}

func (r *reader) countPodPeer(pods *PodPeer) error {
	key := pods.Key()
	if _, known := r.podPeers[key]; !known && len(r.podPeers) >= maxPodPeers {
		return fmt.Errorf("the policy has more than %d different pod selectors: use labels that more pods share, or several policies", maxPodPeers)
	}
	r.podPeers[key] = struct{}{}
	return nil
}

// parseBlock masks what isn't canonical, such as 10.0.0.1/8: the API server has
// always stored such blocks, and means the range by them.
func parseBlock(b *networkingv1.IPBlock) (*Block, error) {
	cidr, err := parsePrefix(b.CIDR)
	if err != nil {
		return nil, fmt.Errorf("ipBlock.cidr: %w", err)
	}
	block := &Block{CIDR: cidr}
	for i, text := range b.Except {
		except, err := parsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("ipBlock.except[%d]: %w", i, err)
		}
		block.Except = append(block.Except, except)
	}
	return block, nil
}

// parsePrefix reads a CIDR and unmaps IPv4 addresses written as IPv6, such as
// ::ffff:10.0.0.0/104.
func parsePrefix(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	if prefix.Addr().Is4In6() {
		if prefix.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("%q mixes IPv4 and IPv6: write it as an IPv4 CIDR", text)
		}
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), nil
}

func parsePort(np *networkingv1.NetworkPolicyPort) (Port, error) {
	protocol := TCP
	if np.Protocol != nil {
		var err error
		if protocol, err = parseProtocol(*np.Protocol); err != nil {
			return Port{}, err
		}
	}
	if np.Port == nil {
		if np.EndPort != nil {
			return Port{}, errors.New("endPort needs a port")
		}
		return Port{Protocol: protocol, Last: 65535}, nil
	}
	if np.Port.Type == intstr.String {
		if np.Port.StrVal == "" || np.EndPort != nil {
			return Port{}, fmt.Errorf("port %q: a port name must not be empty and has no endPort", np.Port.StrVal)
		}
		return Port{Protocol: protocol, Name: np.Port.StrVal}, nil
	}
	first, last := np.Port.IntVal, np.Port.IntVal
	if np.EndPort != nil {
		last = *np.EndPort
	}
	if first < 1 || last > 65535 || first > last {
		return Port{}, fmt.Errorf("ports %d to %d: want 1 to 65535 in rising order", first, last)
	}
	return Port{Protocol: protocol, First: uint16(first), Last: uint16(last)}, nil
}

// parseProtocol reads a protocol; the empty one is TCP, the API's default.
func parseProtocol(protocol corev1.Protocol) (Protocol, error) {
	switch protocol {
	case corev1.ProtocolTCP, "":
		return TCP, nil
	case corev1.ProtocolUDP:
		return UDP, nil
	case corev1.ProtocolSCTP:
		return SCTP, nil
	}
	return 0, fmt.Errorf("unknown protocol %q: want TCP, UDP or SCTP", protocol)
}
