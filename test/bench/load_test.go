package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// writers is how many write to the API server at once when a cluster is made.
const writers = 24

// unlimited are the flags of an API server that takes all that it can, and of an
// etcd that has room for 100,000 pods with their earlier versions.
var (
	unlimited = map[string]string{
		"enable-priority-and-fairness":   "false",
		"max-requests-inflight":          "0",
		"max-mutating-requests-inflight": "0",
	}
	roomy = map[string]string{"quota-backend-bytes": "8589934592"}
)

// newClientset connects with protobuf, which costs the least.
func newClientset(t testing.TB, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf
	config.QPS = -1
	api, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return api
}

// load makes all objects of a cluster.
func load(t testing.TB, api kubernetes.Interface, s size) {
	t.Helper()
	total := s.namespaces * (1 + s.pods + s.policies)
	var done atomic.Int64
	detail := func() string { return fmt.Sprintf("%d of %d objects", done.Load(), total) }
	during("filling the API server", detail, func() {
		parallel(t, s.namespaces, func(ctx context.Context, i int) error { return s.loadNamespace(ctx, api, i, &done) })
	})
}

func (s size) loadNamespace(ctx context.Context, api kubernetes.Interface, i int, done *atomic.Int64) error {
	if _, err := api.CoreV1().Namespaces().Create(ctx, s.namespace(i), metav1.CreateOptions{}); err != nil {
		return err
	}
	done.Add(1)
	for _, policy := range s.policiesOf(i) {
		if _, err := api.NetworkingV1().NetworkPolicies(policy.Namespace).Create(ctx, policy, metav1.CreateOptions{}); err != nil {
			return err
		}
		done.Add(1)
	}
	for _, pod := range s.podsOf(i) {
		if err := runPod(ctx, api, pod); err != nil {
			return err
		}
		done.Add(1)
	}
	return nil
}

// runPod creates a pod and then writes its status, as a scheduler and a kubelet do.
func runPod(ctx context.Context, api kubernetes.Interface, pod *corev1.Pod) error {
	stored, err := api.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	stored.Status = pod.Status
	_, err = api.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, stored, metav1.UpdateOptions{})
	return err
}

// parallel does n things, some at once.
func parallel(t testing.TB, n int, do func(ctx context.Context, i int) error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(writers, n) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	group.Wait()
	require.NoError(t, context.Cause(ctx))
}
