// Package departure decides what an agent that was told to end does with its node: it
// leaves the rules, or it removes them. It is pure: it gets what the agent has seen and
// how much time has passed, and returns the decision with its reason.
//
// An agent ends for many reasons, and most of them say that another agent comes: an
// update, a restart, a drain. Its rules have to stay then, or isolated pods would be open
// meanwhile. Where no agent comes they have to go, or they would close new pods for good.
// So the rules stay unless the agent has proof that nobody will look after them:
//
//   - its Namespace is being deleted,
//   - or the DaemonSet is there and selects the Node no more,
//   - or the DaemonSet is gone, and the marker of the release was deleted and did not
//     come back.
//
// That the DaemonSet is gone is no proof alone: "kubectl replace --force", Argo CD's
// Replace and Flux' force delete it and make it again.
package departure

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/moat-dev/moat/dataplane/placement"
)

// Times of a decision. With the time that cleaning takes they fit into the grace period
// of an agent's pod, 60 seconds.
const (
	// MarkerPatience is how long after the agent was told to end the marker may still be
	// deleted: Helm removes the DaemonSet before the ConfigMaps.
	MarkerPatience = 15 * time.Second

	// MarkerAway is how long the marker has to be gone: what makes the release again makes
	// the marker again within it.
	MarkerAway = 10 * time.Second

	// ServerPatience is how long an API server that does not answer is asked.
	ServerPatience = 10 * time.Second

	// ServerPause is the rest between two such questions.
	ServerPause = 2 * time.Second
)

// Answer is what the API server says of one object.
type Answer int

// Answers. The zero value is none.
const (
	Unanswered Answer = iota // the API server is away, or it was not asked
	Refused                  // the agent has no right to read it any more
	Gone                     // there is no such object
	Ending                   // it is there and being deleted
	Found                    // it is there
)

// Sight is what an agent has seen at one moment after it was told to end.
type Sight struct {
	// Namespace, Pod and DaemonSet are Moat's namespace, the agent's own pod and the
	// DaemonSet moat-agent.
	Namespace, Pod, DaemonSet Answer

	// Node is the agent's own Node, asked for where DaemonSet is Found.
	Node Answer

	// Wanted compares the Node with the DaemonSet's template, Own with the spec of the
	// agent's pod. Wanted is set where DaemonSet and Node are Found, Own where Pod is known
	// as well.
	Wanted, Own placement.Placement

	// Marker is what the watch of the release's marker has seen.
	Marker Marker

	// Waited is how long ago the agent was told to end.
	Waited time.Duration
}

// Marker is what an agent has seen of the release's marker. Its zero value is a marker
// that never was there.
type Marker struct {
	Seen    bool          // it was there at some time
	Deleted bool          // and then it was deleted, and has not come back
	Away    time.Duration // how long it has been deleted
}

// Verdict is what happens to the node's rules.
type Verdict int

// Verdicts.
const (
	Wait  Verdict = iota // not decided yet: look again
	Leave                // the rules stay
	Clean                // every trace of Moat is removed from the node
)

// Decision is a verdict with its reason, half a sentence in plain words.
type Decision struct {
	Verdict Verdict
	Reason  string

	// Again is after what time waiting is worth a new look, even if no watch has news. It
	// is set with Wait.
	Again time.Duration
}

// Decide judges one sight.
func Decide(s *Sight) Decision {
	switch {
	case s.Namespace == Ending || s.Namespace == Gone:
		return clean("its Namespace is being deleted")
	case s.Pod == Found:
		return leave("its pod is not being deleted, so another container or pod follows")
	case s.DaemonSet == Found:
		return decideByNode(s)
	case s.DaemonSet == Unanswered && s.Waited < ServerPatience:
		return Decision{Verdict: Wait, Reason: "the API server does not answer", Again: ServerPause}
	case s.DaemonSet == Unanswered:
		return leave("the API server does not answer, so nothing says that Moat is being removed")
	case s.DaemonSet == Refused && s.Marker.Seen && s.mayRead():
		return decideByRole(s)
	default:
		return decideByMarker(s)
	}
}

// mayRead reports whether the API server has answered anything: the agents' ClusterRole is
// there then.
func (s *Sight) mayRead() bool {
	return s.Namespace == Found || s.Pod == Ending || s.Pod == Gone
}

// decideByRole judges where the DaemonSet may not be read any more, and other objects may.
// So it is for a moment while Moat is being removed, whose roles go one by one. It stays so
// after a step back to a chart of before 0.3.0, which has neither that right nor the marker.
func decideByRole(s *Sight) Decision {
	if s.Waited < MarkerPatience {
		return Decision{Verdict: Wait, Reason: "its DaemonSet may not be read any more, and the agents' other rights are there: they may be deleted",
			Again: min(ServerPause, MarkerPatience-s.Waited)}
	}
	return leave("its DaemonSet may not be read any more, but the agents' other rights stay, so another agent follows")
}

// decideByNode judges where the DaemonSet is there.
func decideByNode(s *Sight) Decision {
	switch {
	case s.Node == Unanswered && s.Waited < ServerPatience:
		return Decision{Verdict: Wait, Reason: "the API server does not answer", Again: ServerPause}
	case s.Node != Found && s.Node != Ending:
		return leave("its DaemonSet is there, and nothing says that it does not want this Node")
	case !s.Wanted.Selected:
		return clean("its DaemonSet does not select this Node any more")
	case s.Wanted.Wanted():
		return leave("its DaemonSet is there and wants this Node, so another agent follows")
	case s.Own.Selected && len(s.Own.Repelling) == 0:
		return clean("its DaemonSet does not tolerate " + name(s.Wanted.Repelling) + " of this Node any more")
	default:
		// The taint came to the Node, the DaemonSet did not change: so drains begin, and
		// pods run here until they end.
		return leave("this Node got " + name(s.Wanted.Repelling) + ", as a drain does, and its DaemonSet still selects it")
	}
}

// decideByMarker judges where the DaemonSet is gone or going, or can't be read any more.
func decideByMarker(s *Sight) Decision {
	without := map[Answer]string{
		Gone:    "its DaemonSet is gone",
		Ending:  "its DaemonSet is being deleted",
		Refused: "its DaemonSet may not be read any more",
	}[s.DaemonSet]
	switch {
	case !s.Marker.Seen:
		return leave(without + ", but the release has no marker, the ConfigMap moat-release, whose deletion would say that Moat is being removed")
	case s.Marker.Deleted && s.Marker.Away >= MarkerAway:
		return clean(fmt.Sprintf("%s, and the release's marker has been deleted for %s", without, MarkerAway))
	case s.Marker.Deleted:
		return Decision{Verdict: Wait, Reason: without + ", and the release's marker was deleted: it may come back", Again: MarkerAway - s.Marker.Away}
	case s.Waited >= MarkerPatience:
		return leave(without + ", but the release's marker is still there, so another agent follows")
	default:
		return Decision{Verdict: Wait, Reason: without + ", and the release's marker is still there: it may be deleted", Again: MarkerPatience - s.Waited}
	}
}

func leave(reason string) Decision { return Decision{Verdict: Leave, Reason: reason} }
func clean(reason string) Decision { return Decision{Verdict: Clean, Reason: reason} }

// name names taints.
func name(taints []corev1.Taint) string {
	var names []string
	for i := range taints {
		names = append(names, taints[i].ToString())
	}
	if len(names) == 1 {
		return "the taint " + names[0]
	}
	return "the taints " + strings.Join(names, ", ")
}
