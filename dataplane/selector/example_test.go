package selector_test

import (
	"fmt"
	"net/netip"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/selector"
)

// An index is told which sets are wanted and which pods there are. It says what each set
// holds (Elements), and what changed since it was asked last (Changes).
func ExampleIndex() {
	index := selector.NewIndex()
	index.Want(map[string]policy.PeerSet{
		"frontends": {Pods: policy.PodPeer{Namespace: "shop", Pods: labels.SelectorFromSet(labels.Set{"role": "frontend"})}},
	})
	pod := &policy.Pod{
		Namespace: "shop", Name: "web", Labels: labels.Set{"role": "frontend"}, Subject: true,
		Addrs: []netip.Addr{netip.MustParseAddr("10.244.2.2")},
	}
	show := func(name string, element policy.Element, member bool) { fmt.Println(name, element.Addr, member) }
	index.SetPod(pod)
	index.Changes(show)

	index.DeletePod(pod.Key())
	index.Changes(show)
	// Output:
	// frontends 10.244.2.2 true
	// frontends 10.244.2.2 false
}
