package policy

import (
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Namespace is what enforcement needs to know of a namespace.
type Namespace struct {
	Name   string
	Labels labels.Set
	Ends   bool // it is being deleted
}

// Key identifies the namespace as informers do.
func (n *Namespace) Key() types.NamespacedName { return types.NamespacedName{Name: n.Name} }
