package dataplane

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/go-logr/logr"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/metrics"
)

// The status of a pod may show an address that no pod can have, or one of a node. Such an
// address is left out, and everything else goes on: no set has it, and no rule where it can't
// be a pod's or is this node's. The
// agent of the pod's node says so; the other agents leave it out in silence.

// actionReadStatus is the action of the event about such a pod.
const actionReadStatus = "ReadStatus"

// barOwnAddresses keeps the node's own addresses from being those of a pod: isolation of
// such a pod would cut the node off from itself. IPVS's addresses of Services are among
// them. With an error the addresses stay that were known.
func (m *model) barOwnAddresses() error {
	own, err := localAddresses()
	if err != nil {
		return err
	}
	m.change(func() {
		for _, pod := range m.addresses.Bar(own) {
			m.place(pod)
		}
	})
	return nil
}

// localAddresses returns the addresses of all of the node's interfaces.
func localAddresses() (map[netip.Addr]struct{}, error) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("listing the node's addresses: %w", err)
	}
	own := make(map[netip.Addr]struct{}, len(list))
	for i := range list {
		if addr, ok := netip.AddrFromSlice(list[i].IP); ok {
			own[addr.Unmap()] = struct{}{}
		}
	}
	return own, nil
}

// oddPod is a pod of this node whose status shows addresses that are left out.
type oddPod struct {
	uid   types.UID
	shows string // the addresses, each with what is wrong with it
}

// oddPods returns the pods of this node whose status shows addresses that are left out.
func (m *model) oddPods() map[types.NamespacedName]oddPod {
	m.mu.Lock()
	defer m.mu.Unlock()
	odd := map[types.NamespacedName]oddPod{}
	for key, pod := range m.sandboxes.seen {
		shows := pod.Unusable
		for _, addr := range pod.Addrs {
			node := m.addresses.NodeOf(addr, m.addresses.Get(key))
			switch {
			case m.addresses.Barred(addr):
				shows += separated(shows, addr.String()+" (the node's own)")
			case node != "":
				shows += separated(shows, addr.String()+" (node "+node+"'s)")
			}
		}
		if shows != "" {
			odd[key] = oddPod{pod.UID, shows}
		}
	}
	return odd
}

// separated returns text with a comma before it, where something comes before.
func separated(before, text string) string {
	if before == "" {
		return text
	}
	return ", " + text
}

// oddities tells people of odd pods, of each once.
type oddities struct {
	node    string
	log     logr.Logger
	events  events.EventRecorder // nil: no events
	limit   flowcontrol.RateLimiter
	metrics *metrics.Metrics
	told    map[types.NamespacedName]oddPod
}

func newOddities(node string, recorder events.EventRecorder, m *metrics.Metrics, log logr.Logger) *oddities {
	return &oddities{
		node: node, log: log, events: recorder, metrics: m,
		limit: flowcontrol.NewTokenBucketRateLimiter(eventsPerSecond, eventBurst),
	}
}

// tell takes the pods that are odd now.
func (o *oddities) tell(now map[types.NamespacedName]oddPod) {
	for key, odd := range now {
		if o.told[key] != odd {
			o.log.Info("A pod's status shows addresses that no pod can have; they are left out", "pod", key, "addresses", odd.shows)
			o.event(key, odd)
		}
	}
	o.told = now
	o.metrics.Unusable(len(now))
}

func (o *oddities) event(key types.NamespacedName, odd oddPod) {
	if o.events == nil || !o.limit.TryAccept() {
		return
	}
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, UID: odd.uid},
	}
	o.events.Eventf(pod, speaker(o.node), corev1.EventTypeWarning, v1alpha1.EventReasonUnusableAddress, actionReadStatus, "%s",
		message(errors.New("Moat leaves out addresses of this pod's status that no pod can have: "+odd.shows)))
}
