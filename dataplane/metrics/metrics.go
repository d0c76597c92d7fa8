// Package metrics holds the agent's metrics for Prometheus. Its callers decide what is counted, and
// when. They pass values, and the package imports none of theirs.
package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Values of the label result.
const (
	resultSuccess = "success"
	resultError   = "error"
)

// Values of the label kind: what a read-back found changed since the agent wrote it.
const (
	RepairChain = "chain"
	RepairHook  = "hook"
	RepairSet   = "set"
)

// Values of the label kind: how much of the kernel was read.
const (
	ReadFull       = "full"
	ReadInspection = "inspection"
	ReadGlance     = "glance"
)

// Labels are the values of labels that the callers know, so that each series exists from the
// start.
type Labels struct {
	Families   []string // IP families
	Directions []string
	Degraded   []string // reasons
	Resources  []string // of budgets
}

// Pod is a pod as a label names it.
type Pod struct{ Namespace, Name string }

// Metrics are the metrics of one agent. No label names a policy or a set, and only two metrics name
// pods, those of this node. So the number of series doesn't depend on the cluster. No metric is
// counted by a walk over sets. Metrics is safe for concurrent use.
type Metrics struct {
	labels       Labels
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
	scans        *prometheus.CounterVec
	scanDuration prometheus.Histogram
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

// New returns the metrics of an agent that has done nothing yet.
func New(labels Labels) *Metrics {
	m := &Metrics{
		labels:       labels,
		syncs:        counters("syncs_total", "Syncs of the kernel with the cluster, by result.", "result"),
		syncDuration: durations("sync_duration_seconds", "How long a sync took, failed ones included."),
		toKernel: durations("event_to_kernel_duration_seconds",
			"From the first event after the start of a sync to the end of the sync that put it into the kernel."),
		lastSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: Namespace, Name: "last_successful_sync_timestamp_seconds",
			Help: "When the last successful sync ended, in seconds since the epoch; 0 before the first.",
		}),
		firstSync: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: Namespace, Name: "first_sync_duration_seconds",
			Help: "From the moment all watches were complete to the end of the first successful sync; 0 before it.",
		}),
		restores: counters("iptables_restores_total", "Runs of iptables-restore, by result.", "result"),
		requests: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: Namespace, Name: "ipset_requests_total",
			Help: "Netlink requests about ipsets. One may carry many elements.",
		}),
		reads: counters("kernel_reads_total", "Reads of the kernel's rules and sets: of all of them, for signs of a change, or of the mangle tables' rules alone after another program wrote some.", "kind"),
		repairs: counters("repairs_total",
			"Chains, hooks and sets that a read-back found other than the sync before had left them.", "kind"),
		chains:   gauges("iptables_chains", "Moat's chains in the mangle table.", "family"),
		rules:    gauges("iptables_rules", "Rules in Moat's chains, without the hooks in the built-in chains.", "family"),
		sets:     gauges("ipset_sets", "Moat's ipsets.", "family"),
		members:  gauges("ipset_members", "Elements of all of Moat's ipsets together.", "family"),
		isolated: gauges("isolated_pods", "Pods of this node that a policy isolates.", "direction"),
		failed: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: Namespace, Name: "failed_policies",
			Help: "Policies that select a pod of this node and that can't be read in full or are not in force as they are written now.",
		}),
		quarantined: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: Namespace, Name: "quarantined_policies",
			Help: "Policies whose rules or sets the kernel refuses. Their pods are closed.",
		}),
		lockFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: Namespace, Name: "xtables_lock_failures_total",
			Help: "Runs of iptables-restore that did not get the xtables lock in time, or could not open its file.",
		}),
		conflict: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: Namespace, Name: "policy_engine_conflict",
			Help: "1 while rules of another NetworkPolicy engine are on the node, otherwise 0.",
		}),
	}
	m.degraded = gauges("degraded", "1 while the node can't enforce everything for this reason, otherwise 0.", "reason")
	m.unguarded = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: Namespace, Name: "pod_starts_unguarded",
		Help: "1 while a new pod is open until its rules are in force although podStartGuard isn't Off, otherwise 0.",
	})
	m.gap = durations("repair_gap_seconds",
		"For how long rules or sets that another program changed were not as Moat left them, at most: from the last moment at which they were known to be right to the end of the repair.")
	m.addConnections()
	m.addBounds()
	m.addPackets()
	m.beginAtZero()
	return m
}

// addConnections makes the metrics of established connections.
func (m *Metrics) addConnections() {
	m.cutFlows = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: Namespace, Name: "cut_connections_total",
		Help: "Established connections that were cut since a policy forbids them now.",
	})
	m.scans = counters("conntrack_scans_total", "Scans of the kernel's table for forbidden connections, by result.", "result")
	m.scanDuration = durations("conntrack_scan_duration_seconds", "How long a scan of the kernel's table of connections took.")
}

// addBounds makes the metrics of refused elements, and of budgets.
func (m *Metrics) addBounds() {
	m.budgetUsed = gauges("policy_budget_used_ratio", "How much of the node's budget is used of a resource, and of its share of the agent's memory by the namespace that takes most: from 0.8 on the node warns, and a policy that would bring it over 1 is closed.", "resource")
	m.missing = gauges("iptables_missing_matches", "Matches that the kernel or iptables lacks, so that rules do without them and let more pass.", "family")
	m.unjudged = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: Namespace, Name: "unjudged_source_pods",
		Help: "Pods of this node whose packets are not compared with their addresses, although antiSpoofing isn't Off and their namespace isn't exempt.",
	})
	m.refused = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: Namespace, Name: "ipset_refused_elements",
		Help: "Elements of sets that the kernel refuses and that are left out.",
	})
	m.unusable = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: Namespace, Name: "unusable_pod_addresses",
		Help: "Pods of this node whose status shows an address that no pod can have, or one of a node.",
	})
}

// addPackets makes the metrics of packets, and of the pods that may forge some.
func (m *Metrics) addPackets() {
	m.guardDrops, m.spoofed = newGuardDrops(), newSpoofedPackets()
	m.rawSockets, m.spoofing = newRawSocketPods(), newSpoofingPods()
}

// beginAtZero makes the series of counters with labels: Prometheus cannot compute the first
// increase of a series that starts at 1.
func (m *Metrics) beginAtZero() {
	for _, result := range []string{resultSuccess, resultError} {
		m.syncs.WithLabelValues(result)
		m.restores.WithLabelValues(result)
		m.scans.WithLabelValues(result)
	}
	for _, kind := range []string{ReadFull, ReadInspection, ReadGlance} {
		m.reads.WithLabelValues(kind)
	}
	for _, kind := range []string{RepairChain, RepairHook, RepairSet} {
		m.repairs.WithLabelValues(kind)
	}
	m.DegradedBy(nil)
	for _, resource := range m.labels.Resources {
		m.budgetUsed.WithLabelValues(resource)
	}
	for _, family := range m.labels.Families {
		m.GuardDropped(family, 0)
		m.Spoofed(family, 0)
	}
}

// Namespace is what the names of all metrics begin with.
const Namespace = "moat"

func counters(name, help, label string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: Namespace, Name: name, Help: help}, []string{label})
}

func gauges(name, help, label string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: Namespace, Name: name, Help: help}, []string{label})
}

// durations has buckets from a millisecond to half a minute. Only a change without rules takes
// less, and a hanging program is killed after that time.
func durations(name, help string) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: Namespace, Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
	})
}

func (m *Metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		m.syncs, m.syncDuration, m.toKernel, m.lastSuccess, m.firstSync, m.restores, m.requests, m.reads, m.repairs,
		m.chains, m.rules, m.sets, m.members, m.isolated, m.failed, m.guardDrops,
		m.cutFlows, m.scans, m.scanDuration, m.quarantined, m.lockFailures, m.conflict, m.degraded, m.unguarded, m.gap,
		m.refused, m.unusable, m.budgetUsed, m.missing, m.rawSockets, m.spoofed, m.unjudged, m.spoofing,
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(out)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
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

// Restored counts a run of iptables-restore.
func (m *Metrics) Restored(err error) { m.restores.WithLabelValues(resultOf(err)).Inc() }

// LockFailed counts a run that didn't get the xtables lock.
func (m *Metrics) LockFailed() { m.lockFailures.Inc() }

// Requested counts a netlink request about sets. It can serve as ipset.Kernel's OnRequest.
func (m *Metrics) Requested() { m.requests.Inc() }

// Read counts a read of the kernel, of one of the kinds Read….
func (m *Metrics) Read(kind string) { m.reads.WithLabelValues(kind).Inc() }

// Scanned counts a scan of the table of connections.
func (m *Metrics) Scanned(start time.Time, err error) {
	m.scans.WithLabelValues(resultOf(err)).Inc()
	m.scanDuration.Observe(time.Since(start).Seconds())
}

// Cut counts connections that were cut.
func (m *Metrics) Cut(connections int) { m.cutFlows.Add(float64(connections)) }

// Repaired counts what a read-back found different, of one of the kinds Repair….
func (m *Metrics) Repaired(kind string, n int) { m.repairs.WithLabelValues(kind).Add(float64(n)) }

// RepairedAfter takes an upper bound of the time for which rules or sets differed from what the
// agent wrote.
func (m *Metrics) RepairedAfter(gap time.Duration) { m.gap.Observe(gap.Seconds()) }

// Synced counts a sync. The time is that of the first event that it brought into the kernel. It is
// zero if there was none.
func (m *Metrics) Synced(start, event time.Time, err error) {
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

// SyncedFirst notes the first successful sync after the model was complete. A zero time means
// another sync, and changes nothing.
func (m *Metrics) SyncedFirst(complete time.Time) {
	if !complete.IsZero() {
		m.firstSync.Set(time.Since(complete).Seconds())
	}
}

// MembersMoved adds to the elements of a family's sets, where nothing else changes.
func (m *Metrics) MembersMoved(family string, by int) {
	m.members.WithLabelValues(family).Add(float64(by))
}

// DegradedBy takes the reasons for which the node can't enforce everything.
func (m *Metrics) DegradedBy(reasons []string) {
	for _, reason := range m.labels.Degraded {
		m.degraded.WithLabelValues(reason).Set(gaugeOf[slices.Contains(reasons, reason)])
	}
}

// BudgetUsed takes the part of the node's budget of a resource that is used.
func (m *Metrics) BudgetUsed(resource string, ratio float64) {
	m.budgetUsed.WithLabelValues(resource).Set(ratio)
}

// Unguarded takes whether a new pod is open although it shouldn't be.
func (m *Metrics) Unguarded(is bool) { m.unguarded.Set(gaugeOf[is]) }

// Refused takes how many elements of sets the kernel refuses.
func (m *Metrics) Refused(elements int) { m.refused.Set(float64(elements)) }

// Unusable takes how many pods show addresses that no pod can have.
func (m *Metrics) Unusable(pods int) { m.unusable.Set(float64(pods)) }

// GuardDropped takes what the counters of a family's guard show.
func (m *Metrics) GuardDropped(family string, packets uint64) { m.guardDrops.read(family, packets) }

// Spoofed takes what the counters of a family's forged packets show.
func (m *Metrics) Spoofed(family string, packets uint64) { m.spoofed.read(family, packets) }

// AskForRawSockets takes a function that returns the pods that may forge packets, where policies
// isolate pods. Each scrape calls it.
func (m *Metrics) AskForRawSockets(pods func() []Pod) { m.rawSockets.ask(pods) }

// gaugeOf is a condition as the value of a gauge.
var gaugeOf = map[bool]float64{false: 0, true: 1}
