package results

// The kinds of figures of a scenario.
const (
	LabelOpens     = "label-opens"
	LabelCloses    = "label-closes"
	PolicyOpens    = "policy-opens"
	PolicyCloses   = "policy-closes"
	PodOpens       = "pod-opens"
	LabelWrite     = "label-write"
	PolicyWrite    = "policy-write"
	LabelInAgent   = "label-in-agent"
	PolicyInAgent  = "policy-in-agent"
	StandInPolicy  = "stand-in-policy"
	StandInLabel   = "stand-in-label"
	FirstSync      = "first-sync"
	RestartSync    = "restart-sync"
	StartToReady   = "start-to-ready"
	Rules          = "rules"
	Sets           = "sets"
	Members        = "members"
	MemoryStart    = "memory-start"
	MemoryChurn    = "memory-churn"
	MemoryPeak     = "memory-peak"
	CPUIdle        = "cpu-idle"
	CPUChurn       = "cpu-churn"
	Churn          = "churn"
	MemoryStalls   = "memory-stalls"
	LabelRestores  = "restores-per-label-change"
	LabelRequests  = "requests-per-label-change"
	PolicyRestores = "restores-per-policy-change"
	PolicyRequests = "requests-per-policy-change"
	ChurnRestores  = "restores-per-churn"
	ChurnRequests  = "requests-per-churn"
)

// The kinds of figures of the scenarios Quiet and Hostile alone. Those of packets are how
// long one takes through the node; those with More, how much longer than in Quiet.
const (
	ChangeInForce   = "change-in-force"
	HostileWrites   = "hostile-writes"
	HostileRate     = "hostile-rate"
	ProgramsPeak    = "memory-peak-programs"
	NewPacket       = "packet-new"
	KnownPacket     = "packet-established"
	OwnPacket       = "packet-own"
	NewPacketMore   = "packet-new-more"
	KnownPacketMore = "packet-established-more"
	OwnPacketMore   = "packet-own-more"
)

// The kinds of traffic.
const (
	NewConnections = "connections"
	NewFlows       = "flows"
	OneStream      = "one-stream"
	ManyStreams    = "many-streams"
)

// kind says what a figure is, for people.
type kind struct {
	id, what, unit string
}

// kinds are all of a scenario, in the order of the table.
var kinds = []kind{
	{ChangeInForce, "label or policy of another namespace changed → in force, both ways", "ms"},
	{LabelOpens, "label change → first packet that passes", "ms"},
	{LabelCloses, "label change → last packet that passes", "ms"},
	{PolicyOpens, "policy created → first packet that passes", "ms"},
	{PolicyCloses, "policy deleted → last packet that passes", "ms"},
	{PodOpens, "new pod's address in the API → first packet that passes", "ms"},
	{LabelWrite, "the API server's part of a label change: request → response", "ms"},
	{PolicyWrite, "the API server's part of a policy change: request → response", "ms"},
	{LabelInAgent, "the agent's part of a label change: event → kernel, mean", "ms"},
	{PolicyInAgent, "the agent's part of a policy change: event → kernel, mean", "ms"},
	{MemoryStalls, "the machine: waits for a page of memory, of the time of touching 16 MB over and over", "%"},
	{StandInLabel, "stand-in: a label change by whole `ipset restore`", "ms"},
	{StandInPolicy, "stand-in: a policy change by whole restores of sets and rules", "ms"},
	{FirstSync, "first sync: caches complete → rules in the kernel", "ms"},
	{RestartSync, "the same after a restart, with the rules there", "ms"},
	{StartToReady, "start of the process → ready", "ms"},
	{Rules, "rules", ""},
	{Sets, "sets", ""},
	{Members, "members of the sets", ""},
	{MemoryStart, "memory (VmRSS) after start", "MB"},
	{MemoryChurn, "memory after churn", "MB"},
	{MemoryPeak, "peak of memory (VmHWM)", "MB"},
	{CPUIdle, "CPU, idle", "% of a core"},
	{CPUChurn, "CPU at 100 pod changes/s", "% of a core"},
	{Churn, "pod changes/s that the API server managed", ""},
	{LabelRestores, "iptables-restores per label change", ""},
	{LabelRequests, "netlink requests per label change", ""},
	{PolicyRestores, "iptables-restores per policy change", ""},
	{PolicyRequests, "netlink requests per policy change", ""},
	{ChurnRestores, "iptables-restores per pod change of the churn", ""},
	{ChurnRequests, "netlink requests per pod change of the churn", ""},
	{ProgramsPeak, "peak of memory (VmRSS) together with the programs that the agent runs", "MB"},
	{HostileWrites, "policies that the hostile namespace wrote meanwhile", ""},
	{HostileRate, "of these per second", ""},
	{NewPacket, "packet of a new connection (SYN) to another namespace's pod", "µs"},
	{KnownPacket, "packet of an established connection of another namespace's pod", "µs"},
	{OwnPacket, "packet of a new connection (SYN) to a pod of the hostile namespace", "µs"},
	{NewPacketMore, "new connection to another namespace's pod: more per packet", "µs"},
	{KnownPacketMore, "established connection of another namespace's pod: more per packet", "µs"},
	{OwnPacketMore, "new connection to a pod of the hostile namespace: more per packet", "µs"},
}

// trafficKinds are all of traffic, in the order of the table.
var trafficKinds = []kind{
	{NewConnections, "new connections (TCP connect, request, response)", "/s"},
	{NewFlows, "new flows (UDP, one packet each)", "/s"},
	{OneStream, "throughput of one established connection", " Gbit/s"},
	{ManyStreams, "throughput of 16 established connections", " Gbit/s"},
}

// stat is the part of a figure that a target is about.
type stat int

const (
	value stat = iota // of one number, or the median
	p90
	p99
)

// target is an upper limit of a figure in one scenario.
type target struct {
	scenario, kind string
	stat           stat
	limit          float64
}

// Names of the scenarios that have targets.
const (
	Large   = "10k"
	Largest = "100k"

	// Hostile is the small cluster in which one namespace writes expensive policies, and
	// Quiet is the same before.
	Quiet   = "quiet"
	Hostile = "hostile"
)

var targets = []target{
	{Large, LabelOpens, value, 20}, {Large, LabelOpens, p90, 50},
	{Large, LabelCloses, value, 20}, {Large, LabelCloses, p90, 50},
	{Large, PolicyOpens, value, 50}, {Large, PolicyOpens, p90, 150},
	{Large, PolicyCloses, value, 50}, {Large, PolicyCloses, p90, 150},
	{Large, FirstSync, value, 1000},
	{Large, MemoryStart, value, 100}, {Large, MemoryChurn, value, 100},
	{Large, CPUIdle, value, 1}, {Large, CPUChurn, value, 5},
	{Largest, MemoryStart, value, 600}, {Largest, MemoryChurn, value, 600},
	{Hostile, ChangeInForce, p99, 1000},
	// The limit of the chart's agent, in MiB.
	{Hostile, MemoryPeak, value, 512}, {Hostile, ProgramsPeak, value, 512},
	{Hostile, NewPacketMore, value, 20}, {Hostile, KnownPacketMore, value, 20}, {Hostile, OwnPacketMore, value, 20},
}

// largestToLarge is how much longer a label change may take in the largest
// scenario than in the large one.
const largestToLarge = 1.5

// mostIsolated is the number of isolated pods that the targets of traffic are
// about, least the ratio that has to be reached.
const mostIsolated = 250

var least = map[string]float64{NewConnections: 0.95, OneStream: 0.98, ManyStreams: 0.98}
