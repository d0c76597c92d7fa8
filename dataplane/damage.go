package dataplane

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/go-logr/logr"

	"github.com/moat-dev/moat/dataplane/metrics"
)

// damage counts what others changed, by the kind of repair.
type damage map[string]int

func (d damage) add(more damage, m *metrics.Metrics) {
	for kind, n := range more {
		m.Repaired(kind, n)
		if n > 0 {
			d[kind] += n
		}
	}
}

func (d damage) String() string {
	return fmt.Sprintf("%d chains, %d hooks, %d sets", d[metrics.RepairChain], d[metrics.RepairHook], d[metrics.RepairSet])
}

// repaired returns what others changed and the sync that just ended repaired, and how
// long at most it was like that: since the last moment at which everything was known to be
// right. Nil for nothing.
func (e *enforcer) repaired(now time.Time) (damage, time.Duration) {
	repaired, gap := e.damage, now.Sub(e.right)
	e.right, e.damage = now, damage{}
	if len(repaired) == 0 {
		return nil, 0
	}
	e.metrics.RepairedAfter(gap)
	return repaired, gap
}

// The event of a Node about repaired rules.
const (
	eventRepaired = "RulesRepaired"
	actionRepair  = "Repair"
)

// repairs tells people that others changed Moat's rules.
type repairs struct {
	node   string
	log    logr.Logger
	events events.EventRecorder
	limit  flowcontrol.RateLimiter
}

func newRepairs(node string, recorder events.EventRecorder, log logr.Logger) *repairs {
	return &repairs{node: node, log: log, events: recorder, limit: flowcontrol.NewTokenBucketRateLimiter(eventsPerSecond, eventBurst)}
}

// tell says what was repaired, in the log and by an event of the Node. The kubelet's
// events have the name of the Node for its uid, and so has kubectl when it looks for them.
func (r *repairs) tell(what damage, gap time.Duration) {
	gap = gap.Round(time.Millisecond)
	r.log.Info("Another program changed Moat's rules or sets, and they are repaired",
		"chains", what[metrics.RepairChain], "hooks", what[metrics.RepairHook], "sets", what[metrics.RepairSet], "atMost", gap.String())
	if !r.limit.TryAccept() {
		return
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: r.node, UID: types.UID(r.node)}}
	r.events.Eventf(node, nil, corev1.EventTypeWarning, eventRepaired, actionRepair,
		"Another program changed Moat's rules on this node (%s). They are repaired; for at most %s traffic may have passed that policies forbid", what, gap)
}
