package policytest

import (
	"cmp"
	"net/netip"
	"slices"

	"go4.org/netipx"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/moat-dev/moat/dataplane/policy"
)

// End is where packets come from or go to.
type End struct {
	Addr netip.Addr
	Node string // empty: outside of the cluster
	Pod  bool   // false, with a node: the node itself
}

// Ends returns every address of which a test can learn something: those of the pods and of
// the nodes, those that ended pods had, and the address on both sides of each edge of each block
// and exception. No address comes twice.
func (o *Objects) Ends() []End {
	var ends []End
	seen := map[netip.Addr]bool{}
	add := func(e End) {
		if e.Addr.IsValid() && !seen[e.Addr] {
			seen[e.Addr] = true
			ends = append(ends, e)
		}
	}
	for i := range o.Pods {
		pod := policy.ParsePod(&o.Pods[i])
		for _, addr := range pod.Addrs {
			add(End{Addr: addr, Node: pod.Node, Pod: true})
		}
	}
	for n := range NodeCount {
		for _, addr := range nodeAddresses(n) {
			add(End{Addr: netip.MustParseAddr(addr), Node: NodeName(n)})
		}
	}
	for i := range o.Pods {
		for _, ip := range o.Pods[i].Status.PodIPs {
			add(End{Addr: netip.MustParseAddr(ip.IP)}) // an ended pod's, that no other pod has
		}
	}
	for _, outside := range []string{"192.0.2.7", "2001:db8::7"} {
		add(End{Addr: netip.MustParseAddr(outside)})
	}
	for _, block := range o.blocks() {
		for _, addr := range edges(block) {
			add(End{Addr: addr})
		}
	}
	return ends
}

// blocks lists the prefixes of all ipBlocks, exceptions included, as far as they
// can be read.
func (o *Objects) blocks() []netip.Prefix {
	var blocks []netip.Prefix
	for _, peer := range o.peers() {
		if peer.IPBlock == nil {
			continue
		}
		for _, text := range append([]string{peer.IPBlock.CIDR}, peer.IPBlock.Except...) {
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				continue
			}
			if prefix.Addr().Is4In6() {
				prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
			}
			blocks = append(blocks, prefix.Masked())
		}
	}
	return blocks
}

func (o *Objects) peers() []networkingv1.NetworkPolicyPeer {
	var peers []networkingv1.NetworkPolicyPeer
	for i := range o.Policies {
		for _, rule := range o.Policies[i].Spec.Ingress {
			peers = append(peers, rule.From...)
		}
		for _, rule := range o.Policies[i].Spec.Egress {
			peers = append(peers, rule.To...)
		}
	}
	return peers
}

// edges returns the addresses before, at and after both ends of a prefix. One
// that doesn't exist is the zero Addr.
func edges(prefix netip.Prefix) []netip.Addr {
	first, last := prefix.Addr(), netipx.PrefixLastIP(prefix)
	return []netip.Addr{first.Prev(), first, last, last.Next()}
}

// Service is what a packet asks for. Port is 0 and Type is set for ICMP alone.
type Service struct {
	Protocol policy.Protocol
	Port     uint16
	Type     uint8
}

// Services returns what a test can learn from between addresses of one family:
// every protocol with the ports at and around each edge of each range of ports,
// the ports that pods serve, and protocols without ports.
func (o *Objects) Services() []Service {
	ports := map[uint16]bool{}
	add := func(numbers ...int32) {
		for _, number := range numbers {
			if 0 <= number && number <= 65535 {
				ports[uint16(number)] = true
			}
		}
	}
	add(0, 80, 65535)
	for _, port := range o.ports() {
		if port.Port == nil || port.Port.Type != intstr.Int {
			continue
		}
		add(port.Port.IntVal-1, port.Port.IntVal, port.Port.IntVal+1)
		if port.EndPort != nil {
			add(*port.EndPort-1, *port.EndPort, *port.EndPort+1)
		}
	}
	for i := range o.Pods {
		for _, port := range policy.ParsePod(&o.Pods[i]).Ports {
			add(int32(port.Number))
		}
	}
	services := []Service{{Protocol: policy.ICMP, Type: 8}, {Protocol: 47}}
	for port := range ports {
		for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
			services = append(services, Service{Protocol: protocol, Port: port})
		}
	}
	slices.SortFunc(services, func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return services
}

func (o *Objects) ports() []networkingv1.NetworkPolicyPort {
	var ports []networkingv1.NetworkPolicyPort
	for i := range o.Policies {
		for _, rule := range o.Policies[i].Spec.Ingress {
			ports = append(ports, rule.Ports...)
		}
		for _, rule := range o.Policies[i].Spec.Egress {
			ports = append(ports, rule.Ports...)
		}
	}
	return ports
}

// For returns the service as it is in the family of the address: the ping of
// IPv6 is another protocol.
func (s Service) For(addr netip.Addr) Service {
	if s.Protocol == policy.ICMP && addr.Is6() {
		return Service{Protocol: policy.ICMPv6, Type: 128}
	}
	return s
}
