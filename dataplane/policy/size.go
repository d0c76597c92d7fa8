package policy

import (
	"net/netip"
	"unsafe"

	"k8s.io/apimachinery/pkg/labels"
)

// sizeOf is about how many bytes of memory a policy takes. Selectors that it shares with
// others count for each.
func sizeOf(p *Policy) int {
	size := int(unsafe.Sizeof(*p)) + len(p.Namespace) + len(p.Name) + len(p.UID) + selectorSize(p.Selector)
	for _, err := range p.Unreadable {
		size += len(err.Error())
	}
	for _, rules := range p.Rules {
		for i := range rules {
			size += ruleSize(&rules[i])
		}
	}
	return size
}

func ruleSize(r *Rule) int {
	size := int(unsafe.Sizeof(*r))
	for i := range r.Ports {
		size += int(unsafe.Sizeof(r.Ports[i])) + len(r.Ports[i].Name)
	}
	for i := range r.Peers {
		size += int(unsafe.Sizeof(r.Peers[i]))
		if block := r.Peers[i].Block; block != nil {
			size += int(unsafe.Sizeof(*block)) + len(block.Except)*int(unsafe.Sizeof(netip.Prefix{}))
		}
		if pods := r.Peers[i].Pods; pods != nil {
			size += int(unsafe.Sizeof(*pods)) + len(pods.Namespace) + selectorSize(pods.Namespaces) + selectorSize(pods.Pods)
		}
	}
	return size
}

// requirementSize is what a requirement takes beside its texts.
const requirementSize = int(unsafe.Sizeof(labels.Requirement{}))

func selectorSize(s labels.Selector) int {
	if s == nil || s.Empty() {
		return 0
	}
	requirements, _ := s.Requirements()
	size := 0
	for i := range requirements {
		size += requirementSize + len(requirements[i].Key())
		for _, value := range requirements[i].ValuesUnsorted() {
			size += int(unsafe.Sizeof(value)) + len(value)
		}
	}
	return size
}
