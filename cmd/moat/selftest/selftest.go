// Package selftest proves with packets that a cluster enforces AppIsolations. It makes
// two servers, isolates each with an AppIsolation of which one allows this pod and
// the other nobody, and connects to both.
//
// Each connection is tried before there is an AppIsolation, too: a pod that can't be
// reached anyhow proves nothing.
package selftest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

const (
	// startWithin bounds the start of the servers, which may have to pull the image.
	startWithin = 90 * time.Second
	// enforceWithin bounds the wait for the condition Enforced.
	enforceWithin = 30 * time.Second
	// answerWithin bounds the tries of a connection that shall succeed. Enforced speaks
	// of a policy's own pods; the addresses of its peers follow within a second.
	answerWithin = 10 * time.Second
	// silentTries is how often a connection that shall not succeed is tried.
	silentTries = 2
	// cleanUpWithin bounds the removal of what was made, which begins also where the
	// test was ended.
	cleanUpWithin = 10 * time.Second
)

// Test is one run. All fields have to be set.
type Test struct {
	// Client needs the rights to get, create and delete pods and AppIsolations in the
	// namespace of Pod, and to delete the RoleBinding of Pod's name, by which it has them.
	Client client.Client
	// Pod is the one that this program runs in. It needs the label ClientLabel, with
	// the value ClientValue. The servers are made after its image and its rights.
	Pod types.NamespacedName
	// Out gets a line for each thing that was seen.
	Out io.Writer
	// Dial connects to a server; see DialTCP.
	Dial func(ctx context.Context, address string) error
	// Poll is the wait between two tries.
	Poll time.Duration
}

// server is one of the pods that are connected to.
type server struct {
	role      // what becomes of connections to it
	name      string
	node      string
	addresses []string
}

// Run makes everything, connects, and removes it again. Its error names each thing
// that went otherwise than a policy says.
func (t *Test) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, t.giveUpRights(ctx)) }()
	self := &corev1.Pod{}
	switch err := t.Client.Get(ctx, t.Pod, self); {
	case err != nil && apierrors.ReasonForError(err) == metav1.StatusReasonUnknown:
		return fmt.Errorf("the API server can't be reached from the test's pod: %w; if no agent runs on its node, the pod-start guard closes it, "+
			"as every new pod: kubectl -n %s get pods -o wide", err, t.Pod.Namespace)
	case err != nil:
		return fmt.Errorf("reading the test's own pod: %w", err)
	}
	if self.Labels[ClientLabel] != ClientValue {
		return fmt.Errorf("pod %s has no label %s=%s, by which it would be allowed: run the test with helm test", t.Pod, ClientLabel, ClientValue)
	}
	servers := []server{{role: allowed}, {role: forbidden}}
	for i := range servers {
		servers[i].name = nameOf(self, servers[i].role)
	}
	defer func() { err = errors.Join(err, t.cleanUp(ctx, servers)) }()

	if err := t.startServers(ctx, self, servers); err != nil {
		return err
	}
	if err := t.connectOpen(ctx, servers); err != nil {
		return err
	}
	if err := t.isolate(ctx, self, servers); err != nil {
		return err
	}
	return t.connectIsolated(ctx, servers)
}

// startServers makes the servers and waits until they run.
func (t *Test) startServers(ctx context.Context, self *corev1.Pod, servers []server) error {
	for _, s := range servers {
		if err := t.Client.Create(ctx, serverPod(self, s)); err != nil {
			return fmt.Errorf("making the server %s: %w", s.name, err)
		}
	}
	for i := range servers {
		s, pod := &servers[i], &corev1.Pod{}
		err := t.poll(ctx, startWithin, func(ctx context.Context) error {
			if err := t.Client.Get(ctx, t.key(s.name), pod); err != nil {
				return err
			}
			return notRunning(pod)
		})
		if err != nil {
			return fmt.Errorf("starting the server %s: %w", s.name, err)
		}
		s.node, s.addresses = pod.Spec.NodeName, addressesOf(pod)
		t.say("server %s runs on %s", s.name, s.node)
	}
	return nil
}

// connectOpen connects to all servers, which nothing isolates yet.
func (t *Test) connectOpen(ctx context.Context, servers []server) error {
	for _, s := range servers {
		for _, address := range s.addresses {
			if err := t.answers(ctx, address); err != nil {
				return fmt.Errorf("before there is an AppIsolation of the test, %s on %s can't be reached: %w; "+
					"the pod network doesn't work, or another policy of namespace %s closes its pods", s.at(address), s.node, err, t.Pod.Namespace)
			}
		}
	}
	t.say("ok: without an AppIsolation both servers answer")
	return nil
}

// isolate makes the AppIsolations and waits until they say that they are enforced.
func (t *Test) isolate(ctx context.Context, self *corev1.Pod, servers []server) error {
	for _, s := range servers {
		if err := t.Client.Create(ctx, isolationOf(self, s)); err != nil {
			return fmt.Errorf("making the AppIsolation %s: %w", s.name, err)
		}
	}
	for _, s := range servers {
		isolation := &v1alpha1.AppIsolation{}
		err := t.poll(ctx, enforceWithin, func(ctx context.Context) error {
			if err := t.Client.Get(ctx, t.key(s.name), isolation); err != nil {
				return err
			}
			return notEnforced(isolation)
		})
		if err != nil {
			return fmt.Errorf("waiting until the AppIsolation %s, whose pod is on %s, is enforced: %w", s.name, s.node, err)
		}
		t.say("ok: AppIsolation %s is Enforced, on %s nodes", s.name, isolation.Status.Enforcement.Summary)
	}
	return nil
}

// connectIsolated connects to all servers. All of them are tried, so that it is seen
// whether nothing is enforced or nothing is allowed.
func (t *Test) connectIsolated(ctx context.Context, servers []server) error {
	var wrong []error
	for _, s := range servers {
		for _, address := range s.addresses {
			if err := t.connect(ctx, s, address); err != nil {
				t.say("FAILED: %v", err)
				wrong = append(wrong, err)
			}
		}
	}
	return errors.Join(wrong...)
}

func (t *Test) connect(ctx context.Context, s server, address string) error {
	if s.role == allowed {
		if err := t.answers(ctx, address); err != nil {
			return fmt.Errorf("the AppIsolation allows connections to %s on %s, but: %w", s.at(address), s.node, err)
		}
		t.say("ok: %s answers, as it is allowed", s.at(address))
		return nil
	}
	for range silentTries {
		err := t.Dial(ctx, address)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			return fmt.Errorf("the AppIsolation forbids connections to %s, says that it is enforced, but the server on %s answers: "+
				"that node doesn't enforce it", s.at(address), s.node)
		case !isSilence(err):
			return fmt.Errorf("connections to %s on %s are forbidden and should get no answer, but: %w", s.at(address), s.node, err)
		}
	}
	t.say("ok: %s is silent, as it is forbidden", s.at(address))
	return nil
}

// answers tries to connect until it succeeds.
func (t *Test) answers(ctx context.Context, address string) error {
	return t.poll(ctx, answerWithin, func(ctx context.Context) error { return t.Dial(ctx, address) })
}

// poll calls look until there is no error or the time is over, and returns the last error.
func (t *Test) poll(ctx context.Context, within time.Duration, look func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, t.Poll, within, true, func(ctx context.Context) (bool, error) {
		if err := look(ctx); ctx.Err() == nil || last == nil {
			last = err
		}
		return last == nil, nil
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errors.Join(ctx.Err(), last)
	}
	return fmt.Errorf("not within %s: %w", within, last)
}

// cleanUp removes the AppIsolations. The servers go with the test's own pod, which owns
// them: a right to delete pods would be one to delete the agents, too. The garbage
// collector then also removes what cleanUp couldn't.
func (t *Test) cleanUp(ctx context.Context, servers []server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpWithin)
	defer cancel()
	var wrong []error
	for _, s := range servers {
		isolation := &v1alpha1.AppIsolation{ObjectMeta: metav1.ObjectMeta{Namespace: t.Pod.Namespace, Name: s.name}}
		if err := client.IgnoreNotFound(t.Client.Delete(ctx, isolation)); err != nil {
			wrong = append(wrong, fmt.Errorf("removing the AppIsolation %s: %w", s.name, err))
		}
	}
	return errors.Join(wrong...)
}

// giveUpRights deletes the RoleBinding of the test, which has the name of its pod. Helm
// deletes it after a test that succeeded; after one that failed some versions of Helm leave
// it, and with it a right to make pods beside the agents.
func (t *Test) giveUpRights(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpWithin)
	defer cancel()
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: t.Pod.Namespace, Name: t.Pod.Name}}
	if err := client.IgnoreNotFound(t.Client.Delete(ctx, binding)); err != nil {
		return fmt.Errorf("giving up the test's rights, RoleBinding %s: %w", binding.Name, err)
	}
	return nil
}

func (t *Test) key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: t.Pod.Namespace, Name: name}
}

func (t *Test) say(format string, args ...any) {
	_, _ = fmt.Fprintf(t.Out, format+"\n", args...)
}

// at names a server and the address that was tried.
func (s server) at(address string) string { return fmt.Sprintf("%s (%s)", s.name, address) }

// notEnforced says what is missing until an AppIsolation is enforced; nil if nothing is.
func notEnforced(isolation *v1alpha1.AppIsolation) error {
	condition := meta.FindStatusCondition(isolation.Status.Conditions, v1alpha1.ConditionEnforced)
	switch {
	case condition == nil || condition.ObservedGeneration != isolation.Generation:
		return errors.New("the operator has written no status of it yet")
	case condition.Reason == v1alpha1.ReasonNoSelectedPods:
		return errors.New("the operator doesn't see the pod that it selects yet")
	case condition.Status != "True":
		return fmt.Errorf("its condition Enforced is %s, %s: %s", condition.Status, condition.Reason, condition.Message)
	}
	return nil
}
