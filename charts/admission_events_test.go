package charts_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/internal/apiservertest"
)

// eventOf is an event as the agent of a node writes it.
func eventOf(name, node string, regarding corev1.ObjectReference, reason string) *eventsv1.Event {
	return &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: "default", Name: name},
		EventTime:           metav1.NewMicroTime(time.Now()),
		ReportingController: "moat-agent", ReportingInstance: "moat-agent-" + node,
		Action: "Act", Reason: reason, Type: corev1.EventTypeWarning, Note: "what happened",
		Regarding: regarding,
		Related:   &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node},
	}
}

// An agent that was taken over can't write events in the name of another node, nor about
// what is none of an agent's business, nor change what others said.
func TestAnAgentWritesEventsInItsOwnNodesNameAlone(t *testing.T) {
	agent := apiservertest.ClientOf(t, server.Agent(t, "node-own"))
	other := apiservertest.ClientOf(t, server.Agent(t, "node-other"))
	pod := corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "default", Name: "web"}
	nodeOf := func(name string) corev1.ObjectReference {
		return corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: name, UID: types.UID(name)}
	}
	const policy = "moat-agent-events"
	ofOther := eventOf("first", "node-own", nodeOf("node-other"), "RulesRepaired")
	require.Eventually(t, func() bool { // the API server reads its policies with a delay
		return apierrors.IsInvalid(agent.Create(t.Context(), ofOther.DeepCopy(), client.DryRunAll))
	}, time.Minute, 50*time.Millisecond)
	requireDenied(t, agent.Create(t.Context(), ofOther), policy, "the agent of node node-own may write events about its own Node")

	own := eventOf("own", "node-own", nodeOf("node-own"), "RulesRepaired")
	own.Related = nil
	require.NoError(t, agent.Create(t.Context(), own))
	ofPod := eventOf("of-pod", "node-own", pod, "PodNotProgrammed")
	require.NoError(t, agent.Create(t.Context(), ofPod))
	require.NoError(t, agent.Create(t.Context(), eventOf("odd", "node-own", pod, "UnusableAddress")))
	series := client.RawPatch(types.MergePatchType, []byte(`{"series":{"count":2,"lastObservedTime":"2026-01-01T00:00:00.000000Z"}}`))
	require.NoError(t, agent.Patch(t.Context(), ofPod.DeepCopy(), series), "a repeated event is counted")

	for name, row := range map[string]struct {
		change  func(*eventsv1.Event)
		message string
	}{
		"another reason of a pod": {func(e *eventsv1.Event) { e.Reason = "FailedScheduling" }, "the agent of node node-own may write events"},
		"another kind":            {func(e *eventsv1.Event) { e.Regarding.Kind = "Secret" }, "the agent of node node-own may write events"},
		"another node's name":     {func(e *eventsv1.Event) { e.Related.Name = "node-other" }, "the agent of node node-own names its own Node as related"},
		"no node's name":          {func(e *eventsv1.Event) { e.Related = nil }, "the agent of node node-own names its own Node as related"},
		"another program's name":  {func(e *eventsv1.Event) { e.ReportingController = "kubelet" }, "an agent of Moat writes events as reportingController moat-agent"},
	} {
		forged := eventOf("forged", "node-own", pod, "PodNotProgrammed")
		row.change(forged)
		requireDenied(t, agent.Create(t.Context(), forged), policy, row.message)
		require.NotEmpty(t, name)
	}
	requireDenied(t, other.Patch(t.Context(), ofPod.DeepCopy(), series), policy, "the agent of node node-other names its own Node as related")
	forged := client.RawPatch(types.MergePatchType, []byte(`{"note":"forged"}`))
	require.ErrorContains(t, agent.Patch(t.Context(), ofPod.DeepCopy(), forged), "field is immutable", "by the API itself")
	kubelets := eventOf("kubelets", "node-own", pod, "PodNotProgrammed")
	kubelets.ReportingController = "kubelet"
	require.NoError(t, server.Admin(t).Create(t.Context(), kubelets), "others are none of its business")
	requireDenied(t, agent.Patch(t.Context(), kubelets.DeepCopy(), series), policy, "an agent of Moat writes events as reportingController moat-agent")
}
