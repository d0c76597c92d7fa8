package departure

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/moat-dev/moat/dataplane/placement"
)

var (
	fits     = placement.Placement{Selected: true}
	others   = placement.Placement{}
	drained  = placement.Placement{Selected: true, Repelling: []corev1.Taint{{Key: "drain", Effect: corev1.TaintEffectNoSchedule}}}
	evicted  = placement.Placement{Selected: true, Repelling: []corev1.Taint{{Key: "drain", Effect: corev1.TaintEffectNoExecute}}}
	unmarked = Marker{}
	there    = Marker{Seen: true}
	justGone = Marker{Seen: true, Deleted: true, Away: time.Second}
	longGone = Marker{Seen: true, Deleted: true, Away: MarkerAway}
)

func TestDecide(t *testing.T) {
	for name, test := range map[string]struct {
		sight  Sight
		want   Verdict
		reason string
		again  time.Duration
	}{
		// What says at once that Moat is being removed.
		"namespace ends":                          {Sight{Namespace: Ending}, Clean, "Namespace", 0},
		"namespace is gone":                       {Sight{Namespace: Gone}, Clean, "Namespace", 0},
		"namespace ends, the DaemonSet is there":  {Sight{Namespace: Ending, Pod: Ending, DaemonSet: Found, Node: Found, Wanted: fits, Own: fits}, Clean, "Namespace", 0},
		"namespace ends, the pod isn't told yet":  {Sight{Namespace: Ending, Pod: Found}, Clean, "Namespace", 0},
		"namespace ends, the API server is away":  {Sight{Namespace: Ending, Waited: time.Minute}, Clean, "Namespace", 0},
		"a namespace that can't be read is there": {Sight{Namespace: Refused, Pod: Ending, DaemonSet: Found, Node: Found, Wanted: fits}, Leave, "another agent follows", 0},

		// What happens every day.
		"restart of the container":             {Sight{Namespace: Found, Pod: Found}, Leave, "not being deleted", 0},
		"eviction or shutdown of the node":     {Sight{Namespace: Found, Pod: Found, DaemonSet: Gone, Marker: longGone}, Leave, "not being deleted", 0},
		"update":                               {Sight{Namespace: Found, Pod: Ending, DaemonSet: Found, Node: Found, Wanted: fits, Own: fits, Marker: there}, Leave, "another agent follows", 0},
		"pod deleted by force":                 {Sight{Namespace: Found, Pod: Gone, DaemonSet: Found, Node: Found, Wanted: fits, Marker: there}, Leave, "another agent follows", 0},
		"rollback to a chart without marker":   {Sight{Namespace: Found, Pod: Ending, DaemonSet: Found, Node: Found, Wanted: fits, Own: fits, Marker: longGone}, Leave, "another agent follows", 0},
		"the Node is going":                    {Sight{Namespace: Found, Pod: Ending, DaemonSet: Found, Node: Ending, Wanted: fits, Own: fits}, Leave, "another agent follows", 0},
		"the Node is gone":                     {Sight{Namespace: Found, Pod: Ending, DaemonSet: Found, Node: Gone}, Leave, "nothing says", 0},
		"the Node may not be read":             {Sight{Namespace: Found, Pod: Ending, DaemonSet: Found, Node: Refused}, Leave, "nothing says", 0},
		"a drain by a taint":                   {Sight{Namespace: Found, Pod: Ending, DaemonSet: Found, Node: Found, Wanted: drained, Own: drained}, Leave, "the taint drain:NoSchedule", 0},
		"an eviction by a taint":               {Sight{Namespace: Found, Pod: Ending, DaemonSet: Found, Node: Found, Wanted: evicted, Own: evicted}, Leave, "the taint drain:NoExecute", 0},
		"a taint, and the pod is gone already": {Sight{Namespace: Found, Pod: Gone, DaemonSet: Found, Node: Found, Wanted: drained}, Leave, "the taint drain:NoSchedule", 0},

		// The DaemonSet doesn't want the Node.
		"label removed, or nodeSelector narrowed": {Sight{Namespace: Found, Pod: Ending, DaemonSet: Found, Node: Found, Wanted: others, Own: others, Marker: there}, Clean, "does not select this Node", 0},
		"nodeSelector narrowed, no marker":        {Sight{Namespace: Found, Pod: Ending, DaemonSet: Found, Node: Found, Wanted: others, Own: fits}, Clean, "does not select this Node", 0},
		"tolerations narrowed":                    {Sight{Namespace: Found, Pod: Ending, DaemonSet: Found, Node: Found, Wanted: drained, Own: fits}, Clean, "does not tolerate the taint drain:NoSchedule", 0},
		"label removed, unknown pod":              {Sight{DaemonSet: Found, Node: Found, Wanted: others}, Clean, "does not select this Node", 0},

		// The DaemonSet is gone: the marker decides.
		"no marker ever":                      {Sight{Namespace: Found, Pod: Ending, DaemonSet: Gone, Marker: unmarked}, Leave, "has no marker", 0},
		"no marker ever, much later":          {Sight{Namespace: Found, Pod: Ending, DaemonSet: Gone, Marker: unmarked, Waited: time.Minute}, Leave, "has no marker", 0},
		"marker there":                        {Sight{Namespace: Found, Pod: Ending, DaemonSet: Gone, Marker: there, Waited: time.Second}, Wait, "still there", MarkerPatience - time.Second},
		"marker stays":                        {Sight{Namespace: Found, Pod: Ending, DaemonSet: Gone, Marker: there, Waited: MarkerPatience}, Leave, "still there", 0},
		"marker just deleted":                 {Sight{Namespace: Found, Pod: Ending, DaemonSet: Gone, Marker: justGone}, Wait, "may come back", MarkerAway - time.Second},
		"marker deleted late":                 {Sight{Namespace: Found, Pod: Ending, DaemonSet: Gone, Marker: justGone, Waited: MarkerPatience + time.Second}, Wait, "may come back", MarkerAway - time.Second},
		"marker gone":                         {Sight{Namespace: Found, Pod: Ending, DaemonSet: Gone, Marker: longGone}, Clean, "is gone, and the release's marker has been deleted for 10s", 0},
		"marker gone, foreground deletion":    {Sight{Namespace: Found, Pod: Ending, DaemonSet: Ending, Marker: longGone}, Clean, "is being deleted", 0},
		"marker gone, and the rights":         {Sight{Namespace: Refused, Pod: Refused, DaemonSet: Refused, Marker: longGone}, Clean, "may not be read", 0},
		"the rights are gone":                 {Sight{Namespace: Refused, Pod: Refused, DaemonSet: Refused, Marker: there, Waited: MarkerPatience}, Leave, "may not be read", 0},
		"a role is gone, others follow":       {Sight{Namespace: Found, Pod: Ending, DaemonSet: Refused, Marker: there, Waited: time.Second}, Wait, "other rights", ServerPause},
		"step back to an older chart":         {Sight{Namespace: Found, Pod: Ending, DaemonSet: Refused, Marker: longGone}, Wait, "other rights", ServerPause},
		"step back to an older chart, later":  {Sight{Namespace: Found, Pod: Ending, DaemonSet: Refused, Marker: longGone, Waited: MarkerPatience}, Leave, "other rights stay", 0},
		"an older chart, unknown namespace":   {Sight{Pod: Gone, DaemonSet: Refused, Marker: longGone, Waited: MarkerPatience}, Leave, "other rights stay", 0},
		"deleted and made again":              {Sight{Namespace: Found, Pod: Ending, DaemonSet: Found, Node: Found, Wanted: fits, Own: fits, Marker: justGone, Waited: 5 * time.Second}, Leave, "another agent follows", 0},
		"marker gone, DaemonSet comes back":   {Sight{Namespace: Found, Pod: Ending, DaemonSet: Found, Node: Found, Wanted: fits, Own: fits, Marker: longGone, Waited: 15 * time.Second}, Leave, "another agent follows", 0},
		"marker gone, the API server is away": {Sight{Marker: longGone, Waited: ServerPatience}, Leave, "does not answer", 0},

		// The API server is away.
		"nothing answers":      {Sight{}, Wait, "does not answer", ServerPause},
		"nothing answers long": {Sight{Waited: ServerPatience}, Leave, "does not answer", 0},
		"the Node's answer is missing": {Sight{Namespace: Found, Pod: Ending, DaemonSet: Found}, Wait,
			"does not answer", ServerPause},
		"the Node's answer stays away": {Sight{Namespace: Found, Pod: Ending, DaemonSet: Found, Waited: ServerPatience}, Leave, "nothing says", 0},
	} {
		t.Run(name, func(t *testing.T) {
			have := Decide(&test.sight)
			require.Equal(t, test.want, have.Verdict, have.Reason)
			require.Contains(t, have.Reason, test.reason)
			require.Equal(t, test.again, have.Again)
		})
	}
}

// A node is cleaned only with proof: whatever the API server does not answer, or refuses
// to answer, no such sight cleans unless a Namespace, a DaemonSet or a marker says so.
func TestSilenceCleansNothing(t *testing.T) {
	silent := []Answer{Unanswered, Refused}
	for _, namespace := range append(silent, Found) {
		for _, pod := range append(silent, Gone, Ending, Found) {
			for _, daemonSet := range append(silent, Gone, Ending, Found) {
				for _, node := range append(silent, Gone) {
					for _, marker := range []Marker{unmarked, there, justGone} {
						s := Sight{Namespace: namespace, Pod: pod, DaemonSet: daemonSet, Node: node, Marker: marker, Waited: time.Hour}
						require.NotEqual(t, Clean, Decide(&s).Verdict, "%+v", s)
					}
				}
			}
		}
	}
}

// Every wait ends: with the time that a decision asks for, the next one is nearer to a
// verdict, and the slowest of them leaves time to clean within the grace period.
func TestEveryWaitEnds(t *testing.T) {
	const gracePeriod, cleaning = 60 * time.Second, 20 * time.Second
	for name, start := range map[string]Sight{
		"away":                {},
		"marker stays":        {DaemonSet: Gone, Marker: there},
		"marker gone late":    {DaemonSet: Gone, Marker: Marker{Seen: true, Deleted: true}, Waited: MarkerPatience},
		"Node does not come":  {DaemonSet: Found},
		"marker goes at once": {DaemonSet: Refused, Marker: Marker{Seen: true, Deleted: true}},
	} {
		t.Run(name, func(t *testing.T) {
			s := start
			decision := Decide(&s)
			for ; decision.Verdict == Wait; decision = Decide(&s) {
				require.Positive(t, decision.Again)
				s.Waited += decision.Again
				s.Marker.Away += decision.Again
				require.Less(t, s.Waited, gracePeriod-cleaning)
			}
		})
	}
}
