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
	// MarkerPatience is how long the agent waits for the deletion of the marker, after it was
	// told to end: Helm removes the DaemonSet before the ConfigMaps.
	MarkerPatience = 15 * time.Second

	// MarkerAway is how long the marker has to be gone. A program that makes the release again
	// makes the marker again within that time.
	MarkerAway = 10 * time.Second

	// ServerPatience is how long the agent asks an API server that doesn't answer.
	ServerPatience = 10 * time.Second

	// ServerPause is the pause between two such questions.
	ServerPause = 2 * time.Second
)

// Answer is what the API server says of one object.
type Answer int

// Answers. The zero value is none.
const (
	Unanswered Answer = iota // the API server is away, or it was not asked
	Refused                  // the agent lost the right to read it
	Gone                     // there is no such object
	Ending                   // it is there and being deleted
	Found                    // it is there
)

// Sight is what an agent has seen at one moment after it was told to end.
type Sight struct {
	// Namespace, Pod and DaemonSet are Moat's namespace, the agent's own pod and the
	// DaemonSet moat-agent.
	Namespace, Pod, DaemonSet Answer

	// Node is the agent's own Node. It is read where DaemonSet is Found.
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

// Marker is what an agent has seen of the release's marker. The zero value is a marker that was
// never there.
type Marker struct {
	Seen    bool          // it was there at some time
	Deleted bool          // and then it was deleted, and has not come back
	Away    time.Duration // how long it has been deleted
}

// Verdict is what happens to the node's rules.
type Verdict int

// Verdicts.
const (
	Wait  Verdict = iota // not decided yet: decide again later
	Leave                // the rules stay
	Clean                // every trace of Moat is removed from the node
)

// Decision is a verdict with its reason, half a sentence in plain words.
type Decision struct {
	Verdict Verdict
	Reason  string

	// Again is the time after which the agent has to read the objects again, even if no watch
	// has news. It is set with Wait.
	Again time.Duration
}

// Decide decides by one sight.
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

// mayRead reports whether the API server has answered a question. Then the agents' ClusterRole is
// there.
func (s *Sight) mayRead() bool {
	return s.Namespace == Found || s.Pod == Ending || s.Pod == Gone
}

// decideByRole decides where the agent lost the right to read the DaemonSet, but may read other
// objects. That is so for a moment while Moat is being removed, since its roles go one by one. It
// stays so after a downgrade to a chart before 0.3.0, which has neither that right nor the marker.
func decideByRole(s *Sight) Decision {
	if s.Waited < MarkerPatience {
		return Decision{Verdict: Wait, Reason: "its DaemonSet may not be read any more, and the agents' other rights are there: they may be deleted",
			Again: min(ServerPause, MarkerPatience-s.Waited)}
	}
	return leave("its DaemonSet may not be read any more, but the agents' other rights stay, so another agent follows")
}

// decideByNode decides where the DaemonSet is there.
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
		// The Node got a taint, and the DaemonSet did not change. A drain begins like that, and
		// pods run here until it ends.
		return leave("this Node got " + name(s.Wanted.Repelling) + ", as a drain does, and its DaemonSet still selects it")
	}
}

// decideByMarker decides where the DaemonSet is gone or being deleted, or can't be read.
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
