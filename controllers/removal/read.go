package removal

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

const (
	// DaemonSetName and agentContainer are what config and the chart call the
	// agents' DaemonSet and its container.
	DaemonSetName  = "moat-agent"
	agentContainer = "agent"

	// AbsentTaint is the key of the taint that the operator puts on a node whose agent
	// is away.
	AbsentTaint = "isolation.moat.dev/agent-absent"

	// pageSize bounds what one answer of the API server holds: some 10 MB of Nodes.
	pageSize = 500
)

// componentLabels are the labels of Moat's pods, which config and the chart set.
func componentLabels(component string) client.MatchingLabels {
	return client.MatchingLabels{"app.kubernetes.io/name": "moat", "app.kubernetes.io/component": component}
}

// cluster is what the check knows of a cluster.
type cluster struct {
	// daemonSet is whether the agents' DaemonSet is there.
	daemonSet bool
	// nodes has each Node by its name.
	nodes map[string]node
	// reports has the names of the nodes whose agent has written a NodeEnforcement.
	reports map[string]bool
	// agents has the agents' pods by the name of their node.
	agents map[string][]agent
	// operatorReady is whether a pod of the operator is Ready.
	operatorReady bool
}

type node struct {
	// notReady is why the Node isn't Ready; empty: it is.
	notReady string
	// tainted is whether AbsentTaint stands.
	tainted bool
}

// read asks the API server for pages, and keeps of each object what the check needs: of
// 5,000 nodes some 30 MB.
func read(ctx context.Context, reader pagedReader, namespace string) (cluster, error) {
	seen := cluster{nodes: map[string]node{}, reports: map[string]bool{}, agents: map[string][]agent{}}
	err := reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: DaemonSetName}, &appsv1.DaemonSet{})
	if client.IgnoreNotFound(err) != nil {
		return cluster{}, fmt.Errorf("reading DaemonSet %s/%s: %w", namespace, DaemonSetName, err)
	}
	seen.daemonSet = err == nil

	nodes := &corev1.NodeList{}
	err = reader.eachPage(ctx, nodes, func() {
		for i := range nodes.Items {
			seen.nodes[nodes.Items[i].Name] = nodeOf(&nodes.Items[i])
		}
	})
	if err != nil {
		return cluster{}, fmt.Errorf("listing Nodes: %w", err)
	}

	// Their names alone: a report lists up to 500 policies.
	reports := &metav1.PartialObjectMetadataList{}
	reports.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("NodeEnforcementList"))
	err = reader.eachPage(ctx, reports, func() {
		for i := range reports.Items {
			seen.reports[reports.Items[i].Name] = true
		}
	})
	if err != nil && !meta.IsNoMatchError(err) && !apierrors.IsNotFound(err) {
		return cluster{}, fmt.Errorf("listing NodeEnforcements: %w", err)
	}

	pods := &corev1.PodList{}
	err = reader.eachPage(ctx, pods, func() {
		for i := range pods.Items {
			if at := nodeNameOf(&pods.Items[i]); at != "" {
				seen.agents[at] = append(seen.agents[at], agentOf(&pods.Items[i]))
			}
		}
	}, client.InNamespace(namespace), componentLabels("agent"))
	if err != nil {
		return cluster{}, fmt.Errorf("listing the agents' pods in namespace %s: %w", namespace, err)
	}

	err = reader.eachPage(ctx, pods, func() {
		for i := range pods.Items {
			seen.operatorReady = seen.operatorReady || isReady(&pods.Items[i])
		}
	}, client.InNamespace(namespace), componentLabels("operator"))
	if err != nil {
		return cluster{}, fmt.Errorf("listing the operator's pods in namespace %s: %w", namespace, err)
	}
	return seen, nil
}

// pagedReader lists page by page.
type pagedReader struct {
	client.Reader
	pageSize int64
}

// eachPage lists into list, and calls use after each page.
func (r pagedReader) eachPage(ctx context.Context, list client.ObjectList, use func(), options ...client.ListOption) error {
	options = append(options, client.Limit(r.pageSize))
	for next := ""; ; {
		if err := r.List(ctx, list, append(options, client.Continue(next))...); err != nil {
			return err
		}
		use()
		if next = list.GetContinue(); next == "" {
			return nil
		}
	}
}

func nodeOf(stored *corev1.Node) node {
	var seen node
	for _, taint := range stored.Spec.Taints {
		seen.tainted = seen.tainted || taint.Key == AbsentTaint
	}
	for _, condition := range stored.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
			seen.notReady = joinReason(condition.Reason, condition.Message)
		}
	}
	return seen
}

// nodeNameOf names the pod's node. A pod that isn't scheduled yet is bound to one by its
// affinity, which the DaemonSet's controller writes. Empty: neither is there.
func nodeNameOf(pod *corev1.Pod) string {
	affinity := pod.Spec.Affinity
	if pod.Spec.NodeName != "" || affinity == nil || affinity.NodeAffinity == nil || affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return pod.Spec.NodeName
	}
	for _, term := range affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, field := range term.MatchFields {
			if field.Key == metav1.ObjectNameField && len(field.Values) == 1 {
				return field.Values[0]
			}
		}
	}
	return ""
}
