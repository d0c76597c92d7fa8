package notify

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/go-logr/logr"
)

// The event of a Node about repaired rules.
const (
	EventRepaired = "RulesRepaired"
	actionRepair  = "Repair"
)

// Repairs tells people that others changed Moat's rules.
type Repairs struct {
	node   string
	log    logr.Logger
	events events.EventRecorder
	limit  flowcontrol.RateLimiter
}

// NewRepairs returns the teller of a node.
func NewRepairs(node string, recorder events.EventRecorder, log logr.Logger) *Repairs {
	return &Repairs{node: node, log: log, events: recorder, limit: NewLimit()}
}

// Tell says what was repaired, in the log and by an event of the Node. The kubelet's
// events have the name of the Node for its uid, and so has kubectl when it looks for them.
func (r *Repairs) Tell(chains, hooks, sets int, gap time.Duration) {
	gap = gap.Round(time.Millisecond)
	r.log.Info("Another program changed Moat's rules or sets, and they are repaired",
		"chains", chains, "hooks", hooks, "sets", sets, "atMost", gap.String())
	if !r.limit.TryAccept() {
		return
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: r.node, UID: types.UID(r.node)}}
	r.events.Eventf(node, nil, corev1.EventTypeWarning, EventRepaired, actionRepair,
		"Another program changed Moat's rules on this node (%d chains, %d hooks, %d sets). They are repaired; for at most %s traffic may have passed that policies forbid",
		chains, hooks, sets, gap)
}
