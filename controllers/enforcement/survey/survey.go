package survey

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/agents"
	"github.com/moat-dev/moat/controllers/enforcement/judge"
)

// get, list, watch: informers of the pods that policies select, of the agents' pods, of the
// agents' reports, of the Nodes that these are about, and of policies.
// +kubebuilder:rbac:groups="",resources=pods;nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=nodeenforcements,verbs=get;list;watch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch

// Survey reads from the manager's cache, which CacheByObject and AddIndexes have prepared. It is
// safe for concurrent use.
type Survey struct {
	reader         client.Reader
	agentNamespace string
}

// New returns a Survey. The agents' pods run in agentNamespace.
func New(reader client.Reader, agentNamespace string) Survey {
	return Survey{reader: reader, agentNamespace: agentNamespace}
}

// Subjects returns the pods of the namespace that the selector selects and that a
// policy can apply to.
func (s Survey) Subjects(ctx context.Context, namespace string, selector labels.Selector) ([]*corev1.Pod, error) {
	var pods corev1.PodList
	err := s.reader.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: selector})
	if err != nil {
		return nil, fmt.Errorf("listing the selected pods: %w", err)
	}
	var subjects []*corev1.Pod
	for i := range pods.Items {
		if IsSubject(&pods.Items[i]) {
			subjects = append(subjects, &pods.Items[i])
		}
	}
	return subjects, nil
}

// Nodes returns what there is to judge about each node that runs one of the pods, which are
// subjects.
func (s Survey) Nodes(ctx context.Context, pods []*corev1.Pod) ([]judge.Node, error) {
	places := map[string]int{} // of each node in nodes
	var nodes []judge.Node
	for _, pod := range pods {
		name := pod.Spec.NodeName
		place, found := places[name]
		if !found {
			n, err := s.node(ctx, name)
			if err != nil {
				return nil, err
			}
			place = len(nodes)
			places[name], nodes = place, append(nodes, n)
		}
		nodes[place].Pods = append(nodes[place].Pods, DigestOf(pod))
	}
	return nodes, nil
}

// node returns what there is to judge about a node, without its pods.
func (s Survey) node(ctx context.Context, name string) (judge.Node, error) {
	agent, err := s.agent(ctx, name)
	if err != nil {
		return judge.Node{}, err
	}
	report, doubt, err := s.nodeReport(ctx, name)
	return judge.Node{Name: name, Agent: agent, Report: report, Doubt: doubt}, err
}

// agent returns the state of a node's agent. While one agent pod replaces another,
// the better of the two counts. A policy asks for its own nodes alone: a list of
// all agents would cost each policy as much as the cluster is large.
func (s Survey) agent(ctx context.Context, nodeName string) (judge.AgentState, error) {
	var pods corev1.PodList
	err := s.reader.List(ctx, &pods, client.InNamespace(s.agentNamespace), client.MatchingFields{PodNodeIndex: nodeName}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return judge.AgentMissing, fmt.Errorf("listing the agents of node %s: %w", nodeName, err)
	}
	state := judge.AgentMissing
	for i := range pods.Items {
		if agents.Is(&pods.Items[i], s.agentNamespace) {
			state = max(state, AgentStateOf(&pods.Items[i]))
		}
	}
	return state, nil
}

// nodeReport returns nil where the node's agent has never reported. doubt says why the report
// proves nothing.
func (s Survey) nodeReport(ctx context.Context, name string) (said *v1alpha1.NodeEnforcementStatus, doubt string, err error) {
	report := &v1alpha1.NodeEnforcement{}
	err = s.reader.Get(ctx, client.ObjectKey{Name: name}, report)
	switch {
	case apierrors.IsNotFound(err):
		return nil, "", nil
	case err != nil:
		return nil, "", fmt.Errorf("reading NodeEnforcement %s: %w", name, err)
	}
	object := &corev1.Node{}
	err = s.reader.Get(ctx, client.ObjectKey{Name: name}, object, client.UnsafeDisableDeepCopy)
	switch {
	case apierrors.IsNotFound(err):
		object = nil
	case err != nil:
		return nil, "", fmt.Errorf("reading Node %s: %w", name, err)
	}
	return &report.Status, judge.DoubtOf(object, report), nil
}

// Neighbours compares the policy of a uid with the others that select one of its
// subjects. found is false where the cache doesn't have the policy yet.
func (s Survey) Neighbours(ctx context.Context, namespace string, uid types.UID, subjects []*corev1.Pod) (n judge.Neighbours, found bool, err error) {
	if len(subjects) == 0 {
		return judge.Neighbours{}, true, nil
	}
	var policies networkingv1.NetworkPolicyList
	if err := s.reader.List(ctx, &policies, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return judge.Neighbours{}, false, fmt.Errorf("listing the namespace's policies: %w", err)
	}
	own := slices.IndexFunc(policies.Items, func(p networkingv1.NetworkPolicy) bool { return p.UID == uid })
	if own < 0 {
		return judge.Neighbours{}, false, nil
	}
	return judge.NeighboursOf(policies.Items, own, judge.LabelSets(subjects)), true, nil
}
