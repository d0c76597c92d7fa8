// Package uninstall empties every node before Moat is removed: it turns the agents'
// DaemonSet into one whose pods remove Moat's rules from their node and then wait.
//
// The DaemonSet is what reaches each node, also one that joins meanwhile, and its
// rollout is what says that a node is clean: such a pod is ready once nothing of Moat
// is left there. Agent and cleanup can't meet on a node, since the DaemonSet's
// controller starts a pod only when the one before it is gone.
package uninstall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

const (
	// DaemonSetName and agentContainer are what config and the chart call the
	// agents' DaemonSet and its container.
	DaemonSetName  = "moat-agent"
	agentContainer = "agent"

	// lookEvery is the time between two looks at the DaemonSet's status, and
	// explainEvery between two looks for what keeps the other nodes.
	lookEvery    = time.Second
	explainEvery = 15 * time.Second

	// fieldManager is the name under which the DaemonSet is changed.
	fieldManager = client.FieldOwner("moat-uninstall")
)

// cleanupPatch makes each pod of the DaemonSet empty its node. All nodes at once: the
// order of nodes has no meaning, and the sooner it is over the better. A pod that
// waits needs no liveness probe; one that fails shows its last words in its status.
const cleanupPatch = `{"spec": {
  "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%", "maxSurge": 0}},
  "template": {
    "metadata": {"labels": {"` + v1alpha1.TaskLabel + `": "` + v1alpha1.TaskCleanup + `"}},
    "spec": {"containers": [{
      "name": "` + agentContainer + `",
      "args": ["agent", "cleanup", "--stay"],
      "livenessProbe": null, "startupProbe": null,
      "terminationMessagePolicy": "FallbackToLogsOnError"
    }]}
  }
}}`

// Uninstaller empties the nodes of one cluster.
type Uninstaller struct {
	Client client.Client
	// Namespace is where the agents run.
	Namespace string
	// Timeout bounds how long the nodes may take.
	Timeout time.Duration
	// Out gets the progress, a line each.
	Out io.Writer

	// lookEvery and explainEvery are set by tests; zero is the constant.
	lookEvery, explainEvery time.Duration
}

// Run empties every node and then deletes the nodes' reports, which nobody keeps
// true any more. Without the DaemonSet there is nothing to do. The error names the
// nodes that aren't clean, says why, and what can be done; the other nodes are clean
// then and enforce no policy. Run may be called again.
func (u *Uninstaller) Run(ctx context.Context) error {
	agents := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: u.Namespace, Name: DaemonSetName}}
	err := u.Client.Patch(ctx, agents, client.RawPatch(types.StrategicMergePatchType, []byte(cleanupPatch)), fieldManager)
	if apierrors.IsNotFound(err) {
		u.printf("there is no DaemonSet %s/%s: no agents to stop", u.Namespace, DaemonSetName)
		return nil
	}
	if err != nil {
		return fmt.Errorf("turning DaemonSet %s/%s into one that empties the nodes: %w", u.Namespace, DaemonSetName, err)
	}
	u.printf("agents are stopped, and each node is emptied of Moat's rules: its policies are enforced no longer")
	if err := u.await(ctx, agents.Generation); err != nil {
		return err
	}
	err = u.Client.DeleteAllOf(ctx, &v1alpha1.NodeEnforcement{})
	if err != nil && !meta.IsNoMatchError(err) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting the NodeEnforcements of agents that are gone: %w", err)
	}
	u.printf("nothing of Moat is left on any node")
	return nil
}

func (u *Uninstaller) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(u.Out, format+"\n", args...)
}

// await returns nil once every node is clean. The API server may be away meanwhile:
// that is said, and waited for.
func (u *Uninstaller) await(ctx context.Context, generation int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, u.Timeout, errTimeout)
	defer cancel()
	look := time.NewTicker(orElse(u.lookEvery, lookEvery))
	defer look.Stop()
	explain := time.NewTicker(orElse(u.explainEvery, explainEvery))
	defer explain.Stop()
	said, seen := "", progress{}
	for {
		var news string
		switch now, err := u.look(ctx, generation); {
		case errors.Is(err, errDaemonSetGone):
			return err
		case err != nil:
			news = err.Error()
		default:
			seen, news = now, now.String()
		}
		if news != said && ctx.Err() == nil {
			said = news
			u.printf("%s", said)
		}
		if seen.done() {
			return nil
		}
		select {
		case <-ctx.Done():
			return u.giveUp(ctx, seen)
		case <-explain.C:
			u.printList(u.explain(ctx))
		case <-look.C:
		}
	}
}

func orElse(value, otherwise time.Duration) time.Duration {
	if value == 0 {
		return otherwise
	}
	return value
}

var (
	errTimeout       = errors.New("timeout")
	errDaemonSetGone = errors.New("the DaemonSet " + DaemonSetName + " was deleted while it emptied the nodes; rules may be left on some: " +
		"docs/operations.md says how to clean them")
)

// progress counts nodes.
type progress struct {
	clean, desired int32
	// seen is whether the controller has acted on the change.
	seen bool
}

func (p progress) done() bool { return p.seen && p.clean >= p.desired }

func (p progress) String() string {
	if !p.seen {
		return "waiting for the controller of DaemonSets"
	}
	return fmt.Sprintf("%d of %d nodes are clean", p.clean, p.desired)
}

// progressOf reads a DaemonSet's status as "kubectl rollout status" does. Agents that
// still run are available too and don't count. Where the status can't tell, fewer
// nodes are called clean than are.
func progressOf(agents *appsv1.DaemonSet, generation int64) progress {
	status := agents.Status
	stillAgents := max(0, status.CurrentNumberScheduled-status.UpdatedNumberScheduled)
	return progress{
		clean:   max(0, min(status.UpdatedNumberScheduled, status.NumberAvailable-stillAgents)),
		desired: status.DesiredNumberScheduled,
		seen:    status.ObservedGeneration >= generation,
	}
}

func (u *Uninstaller) look(ctx context.Context, generation int64) (progress, error) {
	agents := &appsv1.DaemonSet{}
	err := u.Client.Get(ctx, client.ObjectKey{Namespace: u.Namespace, Name: DaemonSetName}, agents)
	switch {
	case apierrors.IsNotFound(err):
		return progress{}, errDaemonSetGone
	case err != nil:
		return progress{}, fmt.Errorf("reading DaemonSet %s/%s: %w", u.Namespace, DaemonSetName, err)
	}
	return progressOf(agents, generation), nil
}

// explainWithin bounds the last look, which is taken when the time is over.
const explainWithin = 15 * time.Second

// giveUp says what is left and what can be done about it.
func (u *Uninstaller) giveUp(ctx context.Context, seen progress) error {
	if !errors.Is(context.Cause(ctx), errTimeout) {
		return fmt.Errorf("emptying the nodes: %w; %s", context.Cause(ctx), seen)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), explainWithin)
	defer cancel()
	stuck := u.explain(ctx)
	var text strings.Builder
	_, _ = fmt.Fprintf(&text, "not every node is clean after %s: %s, and they enforce no policy any more", u.Timeout, seen)
	for _, line := range stuck {
		_, _ = fmt.Fprintf(&text, "\n  %s", line)
	}
	text.WriteString(whatToDo)
	return errors.New(text.String())
}

const whatToDo = `
What to do:
  repair these nodes, or delete their Node objects, and run "helm uninstall" again;
  or leave Moat's rules on them, which a restart of the node removes: "helm uninstall --no-hooks"
    (before an uninstall, the value uninstall.cleanup: false does the same);
  or keep Moat: "helm rollback RELEASE REVISION --force-conflicts", with the last revision of "helm history"
    (Helm 3 doesn't know --force-conflicts: leave it out)`

func (u *Uninstaller) printList(lines []string) {
	for _, line := range lines {
		u.printf("  %s", line)
	}
}

// explain looks for what keeps the nodes that aren't clean.
func (u *Uninstaller) explain(ctx context.Context) []string {
	pods := &corev1.PodList{}
	if err := u.Client.List(ctx, pods, client.InNamespace(u.Namespace)); err != nil {
		return []string{fmt.Sprintf("listing the agents' pods: %v", err)}
	}
	return stuck(pods.Items, func(name string) *corev1.Node {
		node := &corev1.Node{}
		if u.Client.Get(ctx, client.ObjectKey{Name: name}, node) != nil {
			return nil
		}
		return node
	})
}
