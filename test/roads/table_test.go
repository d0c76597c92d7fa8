package roads

import "time"

// outcome is what has to become of a cluster on a road. The words are those of the
// document's table.
type outcome struct {
	rules    string // of Moat, on the nodes
	isolated string // pod
	open     string // pod
	newPod   string
	before   places // where rules stand when the road begins
	after    places // where they stand in the end
	dark     string // the node whose new pods have no network
}

// places are nodes by their names.
type places func(node string) bool

func everywhere(string) bool { return true }
func nowhere(string) bool    { return false }

// only is on one node and no other.
func only(node string) places { return func(other string) bool { return other == node } }

// allBut is everywhere but on one node.
func allBut(node string) places { return func(other string) bool { return other != node } }

// chosenNode is the node that roads about one node are about.
const chosenNode = "node-3"

// What may be expected. An open pod stays open on every road.
var (
	arrives = outcome{"come", "closed", "open", "has its network", nowhere, everywhere, ""}
	stays   = outcome{"stay", "stays closed", "stays open", "has its network", everywhere, everywhere, ""}
	tainted = outcome{"stay", "stays closed", "stays open", "is placed on another node", everywhere, everywhere, ""}
	refused = outcome{"stay until the repair, then go", "closed until then", "stays open", "has its network", everywhere, nowhere, ""}
	leaves  = outcome{"go from every node", "open then", "stays open", "has its network", everywhere, nowhere, ""}
	thins   = outcome{"go from that node", "open there, closed elsewhere", "stays open", "has its network", everywhere, allBut(chosenNode), ""}
	strands = outcome{"stay on the node without an agent", "closed there, open elsewhere", "stays open", "has its network elsewhere", everywhere, only(chosenNode), chosenNode}
	nothing = outcome{"there were none", "open", "stays open", "has its network", nowhere, nowhere, ""}
)

// Limits that the document states.
const (
	// settlesWithin is how long after the last command of a road the nodes are as they
	// shall be.
	settlesWithin = 60 * time.Second

	// networkWithin is how long a pod that nothing isolates may be without network once
	// it runs.
	networkWithin = 5 * time.Second
)

// road is one row of the table.
type road struct {
	name    string // as the document writes it
	from    *installation
	leaves  *installation // what stands in the end; nil: something else
	outcome outcome
	play    func(r *run)
	// watch is how long the outcome is looked at, since some roads show late what they
	// lead to. Zero: glance.
	watch time.Duration
	// image is the tag of one that is needed besides this checkout's.
	image string
	// quick roads are played with QUICK=1 too.
	quick bool
}

// glance is how long an outcome has to last.
const glance = 3 * time.Second

// hooksAreDone is longer than hooks need that a pipeline applied as ordinary objects.
const hooksAreDone = 15 * time.Second

var roads = []road{
	{name: "`helm install`", from: absent, leaves: helmRelease, outcome: arrives, play: helmInstall},
	{name: "`helm upgrade --force-replace` (Flux: `force`)", from: helmRelease, leaves: helmRelease, outcome: stays, play: helmReplace},
	{name: "another image, older or newer", from: helmRelease, leaves: helmRelease, outcome: stays, play: otherImage, image: otherTag},
	{name: "`helm template` with `kubectl apply --server-side` on a running install", from: helmRelease, leaves: helmRelease, outcome: stays, play: applyTemplate, watch: hooksAreDone, quick: true},
	{name: "`kubectl replace --force` of the DaemonSet (Argo CD: `Replace`, `Force`)", from: helmRelease, leaves: helmRelease, outcome: stays, play: replaceByForce, watch: 20 * time.Second, quick: true},
	{name: "`kubectl delete --cascade=orphan` of the DaemonSet, then created again", from: helmRelease, leaves: helmRelease, outcome: stays, play: orphanAgents, watch: 20 * time.Second},
	{name: "`kubectl drain`", from: helmRelease, leaves: helmRelease, outcome: stays, play: drain},
	{name: "an agent is evicted", from: helmRelease, leaves: helmRelease, outcome: stays, play: evict},
	{name: "the API server is away while agents end and start", from: helmRelease, leaves: helmRelease, outcome: stays, play: withoutAPIServer},
	{name: "a second install in the cluster", from: helmRelease, leaves: helmRelease, outcome: stays, play: secondInstall},
	{name: "an agent stays away (its image can't be pulled)", from: helmRelease, outcome: tainted, play: agentAway},
	{name: "`helm upgrade` from the chart before", from: previousRelease, outcome: stays, play: helmUpgrade},
	{name: "`helm rollback` to the chart before", from: upgradedRelease, outcome: stays, play: helmRollback},
	{name: "`kubectl apply -k config/default` again", from: kustomized, outcome: stays, play: applyAgain},

	{name: "`agent.nodeSelector` narrowed", from: helmRelease, outcome: thins, play: narrowSelector, quick: true},
	{name: "a node loses the label that `agent.nodeSelector` names", from: selectedNodes, outcome: thins, play: loseLabel},

	{name: "`helm uninstall` (Flux deletes the HelmRelease)", from: helmRelease, outcome: leaves, play: helmUninstall, quick: true},
	{name: "`helm uninstall --no-hooks`", from: helmRelease, outcome: leaves, play: helmUninstallWithoutHooks},
	{name: "`kubectl delete namespace moat-system`", from: helmRelease, outcome: leaves, play: deleteNamespace, quick: true},
	{name: "`kubectl delete -k config/default`", from: kustomized, outcome: leaves, play: deleteKustomized},
	{name: "Argo CD deletes the application", from: rendered, outcome: leaves, play: deleteApplication},
	{name: "the operator is deleted first, an agent is away; then `helm uninstall --no-hooks`", from: helmRelease, outcome: leaves, play: operatorFirst},
	{name: "an agent is away, `kubectl delete namespace moat-system`", from: helmRelease, outcome: strands, play: deleteNamespaceWithoutAgent},
	{name: "`helm install` of an image that can't be pulled, then `helm uninstall`", from: absent, outcome: nothing, play: failedInstall},
	{name: "`helm uninstall`, then `helm install --take-ownership` under another name in another namespace", from: absent, outcome: arrives, play: moveHouse},
	{name: "`helm uninstall` with a Windows, a virtual-kubelet and a Fargate node", from: absent, outcome: nothing, play: foreignNodes},
	{name: "`helm uninstall` with a default-deny policy in `moat-system`", from: helmRelease, outcome: leaves, play: uninstallBehindPolicy},
	{name: "`helm uninstall` with a quota on the system's priority classes", from: limitedRelease, outcome: leaves, play: helmUninstall},
	{name: "`helm uninstall` with a node that is NotReady", from: helmRelease, outcome: refused, play: uninstallWithDeadNode},
	{name: "`helm uninstall` with an agent away", from: helmRelease, outcome: refused, play: uninstallWithoutAgent},
}
