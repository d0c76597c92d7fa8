package dataplane

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/budget"
	"github.com/moat-dev/moat/dataplane/ipset"
	"github.com/moat-dev/moat/dataplane/iptables"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Values of the label result.
const (
	resultSuccess = "success"
	resultError   = "error"
)

// Values of the label kind: what a read-back found other than it was left.
const (
	repairChain = "chain"
	repairHook  = "hook"
	repairSet   = "set"
)

// Values of the label kind: how the kernel was looked at.
const (
	readFull       = "full"
	readInspection = "inspection"
	readGlance     = "glance"
)

// metrics is what the agent tells Prometheus. No label names a policy or a set, and
// only rawSockets and spoofing name pods, those of this node: how many series there are doesn't
// depend on the cluster. Nothing here is counted by walking over sets. It is safe for
// concurrent use.
type metrics struct {
	syncs        *prometheus.CounterVec
	syncDuration prometheus.Histogram
	toKernel     prometheus.Histogram
	lastSuccess  prometheus.Gauge
	firstSync    prometheus.Gauge
	restores     *prometheus.CounterVec
	requests     prometheus.Counter
	reads        *prometheus.CounterVec
	repairs      *prometheus.CounterVec
	chains       *prometheus.GaugeVec
	rules        *prometheus.GaugeVec
	sets         *prometheus.GaugeVec
	members      *prometheus.GaugeVec
	isolated     *prometheus.GaugeVec
	failed       prometheus.Gauge
	guardDrops   *packetCounts
	spoofed      *packetCounts
	unjudged     prometheus.Gauge
	spoofing     podGauge
	cutFlows     prometheus.Counter
	looks        *prometheus.CounterVec
	lookDuration prometheus.Histogram
	quarantined  prometheus.Gauge
	lockFailures prometheus.Counter
	conflict     prometheus.Gauge
	degraded     *prometheus.GaugeVec
	unguarded    prometheus.Gauge
	gap          prometheus.Histogram
	refused      prometheus.Gauge
	unusable     prometheus.Gauge
	budgetUsed   *prometheus.GaugeVec
	missing      *prometheus.GaugeVec
	rawSockets   *rawSocketPods
}

func newMetrics() *metrics {
	m := &metrics{
		syncs:        counters("syncs_total", "Syncs of the kernel with the cluster, by result.", "result"),
		syncDuration: durations("sync_duration_seconds", "How long a sync took, failed ones included."),
		toKernel: durations("event_to_kernel_duration_seconds",
			"From the first event after the start of a sync to the end of the sync that put it into the kernel."),
		lastSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: metricNamespace, Name: "last_successful_sync_timestamp_seconds",
			Help: "When the last successful sync ended, in seconds since the epoch; 0 before the first.",
		}),
		firstSync: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: metricNamespace, Name: "first_sync_duration_seconds",
			Help: "From the moment all watches were complete to the end of the first successful sync; 0 before it.",
		}),
		restores: counters("iptables_restores_total", "Runs of iptables-restore, by result.", "result"),
		requests: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: metricNamespace, Name: "ipset_requests_total",
			Help: "Netlink requests about ipsets. One may carry many elements.",
		}),
		reads: counters("kernel_reads_total", "Looks at the kernel's rules and sets: at all of them, for signs of a change, or at the mangle tables' rules alone after another program wrote some.", "kind"),
		repairs: counters("repairs_total",
			"Chains, hooks and sets that a read-back found other than the sync before had left them.", "kind"),
		chains:   gauges("iptables_chains", "Moat's chains in the mangle table.", "family"),
		rules:    gauges("iptables_rules", "Rules in Moat's chains, without the hooks in the built-in chains.", "family"),
		sets:     gauges("ipset_sets", "Moat's ipsets.", "family"),
		members:  gauges("ipset_members", "Elements of all of Moat's ipsets together.", "family"),
		isolated: gauges("isolated_pods", "Pods of this node that a policy isolates.", "direction"),
		failed: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: metricNamespace, Name: "failed_policies",
			Help: "Policies that select a pod of this node and that can't be read in full or are not in force as they are written now.",
		}),
		quarantined: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: metricNamespace, Name: "quarantined_policies",
			Help: "Policies whose rules or sets the kernel refuses. Their pods are closed.",
		}),
		lockFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: metricNamespace, Name: "xtables_lock_failures_total",
			Help: "Runs of iptables-restore that did not get the xtables lock in time, or could not open its file.",
		}),
		conflict: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: metricNamespace, Name: "policy_engine_conflict",
			Help: "1 while rules of another NetworkPolicy engine are on the node, otherwise 0.",
		}),
	}
	m.degraded = gauges("degraded", "1 while the node can't enforce everything for this reason, otherwise 0.", "reason")
	m.unguarded = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: metricNamespace, Name: "pod_starts_unguarded",
		Help: "1 while a new pod is open until its rules are in force although podStartGuard isn't Off, otherwise 0.",
	})
	m.cutFlows = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: metricNamespace, Name: "cut_flows_total",
		Help: "Established connections that were cut since a policy forbids them now.",
	})
	m.looks = counters("conntrack_looks_total", "Looks for forbidden connections in the kernel's table, by result.", "result")
	m.lookDuration = durations("conntrack_look_duration_seconds", "How long a look at the kernel's table of connections took.")
	m.gap = durations("repair_gap_seconds",
		"For how long rules or sets that another program changed were not as Moat left them, at most: from the last moment at which they were known to be right to the end of the repair.")
	m.addBounds()
	m.guardDrops, m.spoofed, m.rawSockets, m.spoofing = newGuardDrops(), newSpoofedPackets(), newRawSocketPods(), newSpoofingPods()
	m.beginAtZero()
	return m
}

// addBounds makes the metrics of what is left out, and of what policies may take.
func (m *metrics) addBounds() {
	m.budgetUsed = gauges("policy_budget_used_ratio", "How much of the node's budget is used of a resource: from 0.8 on the node warns, and a policy that would bring it over 1 is closed.", "resource")
	m.missing = gauges("missing_matches", "Matches that the kernel or iptables lacks, so that rules do without them and let more pass.", "family")
	m.unjudged = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: metricNamespace, Name: "unjudged_source_pods",
		Help: "Pods of this node whose packets are not compared with their addresses, although antiSpoofing isn't Off and their namespace isn't exempt.",
	})
	m.refused = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: metricNamespace, Name: "refused_elements",
		Help: "Elements of sets that the kernel refuses and that are left out.",
	})
	m.unusable = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: metricNamespace, Name: "unusable_pod_addresses",
		Help: "Pods of this node whose status shows an address that no pod can have, or one of a node.",
	})
}

// beginAtZero makes the counters that have labels: one that appears with its first
// increase has no rate of it.
func (m *metrics) beginAtZero() {
	for _, result := range []string{resultSuccess, resultError} {
		m.syncs.WithLabelValues(result)
		m.restores.WithLabelValues(result)
		m.looks.WithLabelValues(result)
	}
	for _, kind := range []string{readFull, readInspection, readGlance} {
		m.reads.WithLabelValues(kind)
	}
	for _, kind := range []string{repairChain, repairHook, repairSet} {
		m.repairs.WithLabelValues(kind)
	}
	m.degradedBy(nil)
	m.budget([budget.Resources]float64{})
}

// metricNamespace is what the names of all metrics begin with.
const metricNamespace = "moat"

func counters(name, help, label string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: metricNamespace, Name: name, Help: help}, []string{label})
}

func gauges(name, help, label string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: metricNamespace, Name: name, Help: help}, []string{label})
}

// durations has buckets from a millisecond, less than which a change takes only
// without rules, to half a minute, when a hanging program is ended.
func durations(name, help string) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: metricNamespace, Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
	})
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		m.syncs, m.syncDuration, m.toKernel, m.lastSuccess, m.firstSync, m.restores, m.requests, m.reads, m.repairs,
		m.chains, m.rules, m.sets, m.members, m.isolated, m.failed, m.guardDrops,
		m.cutFlows, m.looks, m.lookDuration, m.quarantined, m.lockFailures, m.conflict, m.degraded, m.unguarded, m.gap,
		m.refused, m.unusable, m.budgetUsed, m.missing, m.rawSockets, m.spoofed, m.unjudged, m.spoofing,
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(out)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range m.collectors() {
		c.Collect(out)
	}
}

func resultOf(err error) string {
	if err != nil {
		return resultError
	}
	return resultSuccess
}

// restored counts a run of iptables-restore.
func (m *metrics) restored(err error) {
	m.restores.WithLabelValues(resultOf(err)).Inc()
	if iptables.IsLock(err) {
		m.lockFailures.Inc()
	}
}

// looked counts a look at the table of connections.
func (m *metrics) looked(start time.Time, err error) {
	m.looks.WithLabelValues(resultOf(err)).Inc()
	m.lookDuration.Observe(time.Since(start).Seconds())
}

// repaired counts what a read-back found different.
func (m *metrics) repaired(kind string, n int) { m.repairs.WithLabelValues(kind).Add(float64(n)) }

// synced counts a sync. The first of the events that it brought into the kernel
// is of that time; zero if there was none.
func (m *metrics) synced(start, event time.Time, err error) {
	now := time.Now()
	m.syncs.WithLabelValues(resultOf(err)).Inc()
	m.syncDuration.Observe(now.Sub(start).Seconds())
	if err != nil {
		return
	}
	m.lastSuccess.Set(float64(now.UnixNano()) / 1e9)
	if !event.IsZero() {
		m.toKernel.Observe(now.Sub(event).Seconds())
	}
}

// membersMoved follows a plan in which elements enter and leave sets and nothing else
// changes.
func (m *metrics) membersMoved(plan *ipset.Plan) {
	count := func(changes []ipset.Change, by float64) {
		for i := range changes {
			family := ruleset.IPv6
			if ruleset.IPv4.Holds(changes[i].Member.Prefix.Addr()) {
				family = ruleset.IPv4
			}
			m.members.WithLabelValues(family.String()).Add(by)
		}
	}
	count(plan.Add, 1)
	count(plan.Delete, -1)
}

// syncedFirst notes the first successful sync after the model was complete; with a
// zero time it was another.
func (m *metrics) syncedFirst(complete time.Time) {
	if !complete.IsZero() {
		m.firstSync.Set(time.Since(complete).Seconds())
	}
}

// degradedBy takes the reasons for which the node can't enforce everything.
func (m *metrics) degradedBy(reasons []string) {
	for _, reason := range degradedReasons {
		m.degraded.WithLabelValues(reason).Set(gaugeOf[slices.Contains(reasons, reason)])
	}
}

// budget takes which part of each budget of the node is used.
func (m *metrics) budget(ratios [budget.Resources]float64) {
	for r, ratio := range ratios {
		m.budgetUsed.WithLabelValues(budget.Resource(r).String()).Set(ratio)
	}
}

// podStart takes the condition PodStartGuarded.
func (m *metrics) podStart(condition *metav1.Condition) {
	m.unguarded.Set(gaugeOf[condition.Status == metav1.ConditionFalse && condition.Reason != v1alpha1.NodeReasonOff])
}

// gaugeOf is a condition as the value of a gauge.
var gaugeOf = map[bool]float64{false: 0, true: 1}

// show tells what the enforcer has in the kernel, and how many policies failed.
func (m *metrics) show(e *enforcer, failed int) {
	m.failed.Set(float64(failed))
	m.quarantined.Set(float64(len(e.quarantine)))
	m.conflict.Set(gaugeOf[len(e.engines) > 0])
	m.unjudged.Set(float64(e.sources.unjudged))
	m.spoofing.show(e.sources.spoofing.names())
	if e.view != nil {
		m.rawSockets.follow(e.view.endpoints)
	}
	for family, table := range e.tables {
		rules := 0
		for _, chain := range table.Chains {
			rules += len(chain)
		}
		m.chains.WithLabelValues(family.String()).Set(float64(len(table.Chains)))
		m.rules.WithLabelValues(family.String()).Set(float64(rules))
	}
	sets, members := e.sizes.sums()
	for _, set := range e.isolated { // has its members apart
		members[set.Family] += len(set.Members)
	}
	for _, family := range ruleset.Families() {
		m.missing.WithLabelValues(family.String()).Set(float64(len(e.extensions.lacks[family])))
		m.sets.WithLabelValues(family.String()).Set(float64(sets[family]))
		m.members.WithLabelValues(family.String()).Set(float64(members[family]))
	}
	for d, pods := range e.view.isolatedPods() {
		m.isolated.WithLabelValues(policy.Direction(d).String()).Set(float64(pods))
	}
}
