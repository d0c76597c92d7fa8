package selftest

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

const namespace = "moat-system"

// errSilent is how a connection ends that no program answers.
var errSilent = &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}

// cluster is one that enforces what it is told, but for what a test takes from it.
type cluster struct {
	client client.WithWatch
	// pod and isolation change what the test reads.
	pod       func(*corev1.Pod)
	isolation func(*v1alpha1.AppIsolation)
	// apiError is what each read of the API ends with, if it isn't nil.
	apiError error
	// dial says what becomes of a connection to a server of a role.
	dial func(r role, isolated bool) error
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	scheme := runtime.NewScheme()
	require.NoError(t, errors.Join(corev1.AddToScheme(scheme), rbacv1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)))
	c := &cluster{
		pod: func(pod *corev1.Pod) {
			pod.Spec.NodeName = "node-1"
			pod.Status.Phase = corev1.PodRunning
			address := "10.244.1.7"
			if strings.Contains(pod.Name, string(forbidden)) {
				address = "10.244.1.8"
			}
			pod.Status.PodIPs = []corev1.PodIP{{IP: address}}
		},
		isolation: func(isolation *v1alpha1.AppIsolation) {
			isolation.Status.Enforcement.Summary = "1/1"
			isolation.Status.Conditions = []metav1.Condition{enforced(metav1.ConditionTrue, v1alpha1.ReasonAllNodesEnforced)}
		},
		dial: func(r role, isolated bool) error {
			if isolated && r == forbidden {
				return errSilent
			}
			return nil
		},
	}
	c.client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(testPod(), testRights()).WithInterceptorFuncs(interceptor.Funcs{Get: c.get}).Build()
	return c
}

// get plays scheduler, kubelet and operator.
func (c *cluster) get(ctx context.Context, api client.WithWatch, key client.ObjectKey, object client.Object, opts ...client.GetOption) error {
	if err := errors.Join(c.apiError, api.Get(ctx, key, object, opts...)); err != nil {
		return err
	}
	switch object := object.(type) {
	case *corev1.Pod:
		c.pod(object)
	case *v1alpha1.AppIsolation:
		c.isolation(object)
	}
	return nil
}

func enforced(status metav1.ConditionStatus, reason string) metav1.Condition {
	return metav1.Condition{Type: v1alpha1.ConditionEnforced, Status: status, Reason: reason, Message: "node-1 says nothing"}
}

// testRights is the RoleBinding that the chart makes.
func testRights() *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "moat-test"}}
}

func testPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "moat-test", UID: "0123456789", Labels: map[string]string{ClientLabel: ClientValue}},
		Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true)},
			Containers: []corev1.Container{{
				Name: "test", Image: "moat:dev", ImagePullPolicy: corev1.PullNever,
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: new(false)},
			}},
		},
	}
}

// run returns what the test printed and its error. Time is the bubble's.
func (c *cluster) run(ctx context.Context, t *testing.T) (string, error) {
	t.Helper()
	var out strings.Builder
	test := &Test{
		Client: c.client,
		Pod:    client.ObjectKeyFromObject(testPod()),
		Out:    &out,
		Poll:   500 * time.Millisecond,
		Dial: func(ctx context.Context, address string) error {
			r := allowed
			if address == "10.244.1.8:8080" {
				r = forbidden
			}
			return c.dial(r, len(c.isolations(t)) > 0)
		},
	}
	err := test.Run(ctx)
	return out.String(), err
}

func (c *cluster) isolations(t *testing.T) []v1alpha1.AppIsolation {
	t.Helper()
	var list v1alpha1.AppIsolationList
	require.NoError(t, c.client.List(context.WithoutCancel(t.Context()), &list))
	return list.Items
}

// requireNothingLeft expects no AppIsolation, no rights, and no pod that doesn't go with the test's
// own, which Helm deletes.
func (c *cluster) requireNothingLeft(t *testing.T) {
	t.Helper()
	var pods corev1.PodList
	require.NoError(t, c.client.List(t.Context(), &pods))
	for _, pod := range pods.Items {
		if pod.Name != "moat-test" {
			require.Equal(t, testPod().UID, pod.OwnerReferences[0].UID, pod.Name)
		}
	}
	require.Empty(t, c.isolations(t))
	var rights rbacv1.RoleBindingList
	require.NoError(t, c.client.List(t.Context(), &rights))
	require.Empty(t, rights.Items, "Helm leaves the rights of a test that failed")
}

func TestAClusterThatEnforces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		out, err := c.run(t.Context(), t)
		require.NoError(t, err)
		require.Contains(t, out, "ok: moat-test-allowed-01234567 (10.244.1.7:8080) answers, as it is allowed")
		require.Contains(t, out, "ok: moat-test-forbidden-01234567 (10.244.1.8:8080) is silent, as it is forbidden")
		c.requireNothingLeft(t)
	})
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	for name, test := range map[string]struct {
		damage func(*cluster)
		want   string
	}{
		"nothing is enforced": {
			func(c *cluster) { c.dial = func(role, bool) error { return nil } },
			"the AppIsolation forbids connections to moat-test-forbidden-01234567 (10.244.1.8:8080), says that it is enforced, but the server on node-1 answers",
		},
		"forbidden connections are refused": {
			func(c *cluster) {
				c.dial = func(r role, isolated bool) error {
					if isolated && r == forbidden {
						return syscall.ECONNREFUSED
					}
					return nil
				}
			},
			"are forbidden and should get no answer, but: connection refused",
		},
		"nothing is allowed": {
			func(c *cluster) {
				c.dial = func(_ role, isolated bool) error {
					if isolated {
						return errSilent
					}
					return nil
				}
			},
			"the AppIsolation allows connections to moat-test-allowed-01234567 (10.244.1.7:8080) on node-1, but: not within 10s: dial",
		},
		"no network": {
			func(c *cluster) { c.dial = func(role, bool) error { return errSilent } },
			"before there is an AppIsolation of the test, moat-test-allowed-01234567 (10.244.1.7:8080) on node-1 can't be reached",
		},
		"no image": {
			func(c *cluster) {
				c.pod = func(pod *corev1.Pod) {
					pod.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{
						Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "not found"},
					}}}
				}
			},
			"starting the server moat-test-allowed-01234567: not within 1m30s: it waits: ErrImagePull not found",
		},
		"no node": {
			func(c *cluster) {
				c.pod = func(pod *corev1.Pod) {
					pod.Status.Conditions = []corev1.PodCondition{{
						Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/3 nodes are available",
					}}
				}
			},
			"it has no node: 0/3 nodes are available",
		},
		"no operator": {
			func(c *cluster) { c.isolation = func(*v1alpha1.AppIsolation) {} },
			"the operator has written no status of it yet",
		},
		"no agent": {
			func(c *cluster) {
				c.isolation = func(isolation *v1alpha1.AppIsolation) {
					isolation.Status.Conditions = []metav1.Condition{enforced(metav1.ConditionUnknown, v1alpha1.ReasonAgentMissing)}
				}
			},
			"its condition Enforced is Unknown, AgentMissing: node-1 says nothing",
		},
		"an operator that sees no pod": {
			func(c *cluster) {
				c.isolation = func(isolation *v1alpha1.AppIsolation) {
					isolation.Status.Conditions = []metav1.Condition{enforced(metav1.ConditionTrue, v1alpha1.ReasonNoSelectedPods)}
				}
			},
			"the operator doesn't see the pod that it selects yet",
		},
		"a status of an older generation": {
			func(c *cluster) {
				now := c.isolation
				c.isolation = func(isolation *v1alpha1.AppIsolation) {
					now(isolation)
					isolation.Generation = 1
				}
			},
			"the operator has written no status of it yet",
		},
		"no agent on the test's own node": {
			func(c *cluster) { c.apiError = errSilent },
			"the API server can't be reached from the test's pod: dial: i/o timeout; if no agent runs on its node, the pod-start guard closes it",
		},
		"another pod": {
			func(c *cluster) { c.pod = func(pod *corev1.Pod) { pod.Labels = nil } },
			"run the test with helm test",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				test.damage(c)
				_, err := c.run(t.Context(), t)
				require.ErrorContains(t, err, test.want)
				c.requireNothingLeft(t)
			})
		})
	}
}

// A test that is ended in the middle removes what it made, too.
func TestAnEndedTestLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		ctx, cancel := context.WithCancel(t.Context())
		c.isolation = func(*v1alpha1.AppIsolation) { cancel() }
		_, err := c.run(ctx, t)
		require.ErrorIs(t, err, context.Canceled)
		c.requireNothingLeft(t)
	})
}

func TestServersHaveTheRightsOfTheTest(t *testing.T) {
	self := testPod()
	pod := serverPod(self, server{role: allowed, name: "a"})
	own, its := self.Spec.Containers[0], pod.Spec.Containers[0]
	require.Equal(t, self.Spec.SecurityContext, pod.Spec.SecurityContext)
	require.Equal(t, own.SecurityContext, its.SecurityContext)
	require.Equal(t, own.Image, its.Image)
	require.Equal(t, own.ImagePullPolicy, its.ImagePullPolicy)
	require.False(t, *pod.Spec.AutomountServiceAccountToken)
	require.Equal(t, []string{"selftest", "serve", "--address=:8080"}, its.Args)
	require.Equal(t, self.UID, pod.OwnerReferences[0].UID)
	require.EqualValues(t, 600, *pod.Spec.ActiveDeadlineSeconds)
}

// Where nodes are tainted, or are of several kinds, the servers find one as the test did.
func TestServersRunOnTheNodesOfTheTest(t *testing.T) {
	self := testPod()
	require.Nil(t, serverPod(self, server{}).Spec.Affinity.NodeAffinity)
	self.Spec.NodeSelector = map[string]string{corev1.LabelOSStable: "linux"}
	self.Spec.Tolerations = []corev1.Toleration{{Key: "infra", Operator: corev1.TolerationOpExists}}
	self.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{}}}
	spec := serverPod(self, server{}).Spec
	require.Equal(t, self.Spec.NodeSelector, spec.NodeSelector)
	require.Equal(t, self.Spec.Tolerations, spec.Tolerations)
	require.Equal(t, self.Spec.Affinity.NodeAffinity, spec.Affinity.NodeAffinity)
	require.NotNil(t, spec.Affinity.PodAntiAffinity, "and apart from each other")
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

func TestServeAndDial(t *testing.T) {
	listener := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- Serve(ctx, listener) }()
	require.NoError(t, DialTCP(t.Context(), listener.Addr().String()))
	require.NoError(t, DialTCP(t.Context(), listener.Addr().String()), "the server goes on")

	cancel()
	require.NoError(t, <-ended)
	err := DialTCP(t.Context(), listener.Addr().String())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.False(t, isSilence(err), "a refusal is an answer")
}

func TestWhoTakesAConnectionIsNotSilent(t *testing.T) {
	listener := listen(t) // the kernel takes connections, and no program accepts them
	err := DialTCP(t.Context(), listener.Addr().String())
	require.ErrorIs(t, err, errTaken)
	require.False(t, isSilence(err))
}

func TestWhatGetsNoAnswerIsSilent(t *testing.T) {
	require.True(t, isSilence(errSilent))
	require.False(t, isSilence(context.Canceled))
}
