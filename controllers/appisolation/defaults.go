package appisolation

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// configRetry is the wait between two attempts to make the IsolationConfig.
const configRetry = 5 * time.Second

// DefaultConfig is the IsolationConfig of a cluster that has none yet: DNS is what
// kubeadm and most distributions run, CoreDNS or kube-dns in kube-system.
func DefaultConfig() *v1alpha1.IsolationConfig {
	return &v1alpha1.IsolationConfig{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.IsolationConfigName},
		Spec: v1alpha1.IsolationConfigSpec{DNS: &v1alpha1.DNSConfig{EntityConfig: v1alpha1.EntityConfig{
			Peers: []v1alpha1.ConfigPeer{{App: &v1alpha1.AppPeer{
				LabelSelector: v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"k8s-app": "kube-dns"}},
				Namespaces:    &v1alpha1.NamespacePeer{Names: []string{metav1.NamespaceSystem}},
			}}},
		}}},
	}
}

// The operator's rights to do so: it can't change what is there.
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=isolationconfigs,verbs=create

// EnsureConfig creates the IsolationConfig when the operator starts and there is none. It never
// changes one that exists.
func EnsureConfig(c client.Client) manager.RunnableFunc {
	return func(ctx context.Context) error {
		logger := log.FromContext(ctx).WithName("isolationconfig")
		err := wait.PollUntilContextCancel(ctx, configRetry, true, func(ctx context.Context) (bool, error) {
			err := c.Create(ctx, DefaultConfig())
			if err != nil && !apierrors.IsAlreadyExists(err) {
				logger.Error(err, "the IsolationConfig can't be made yet", "name", v1alpha1.IsolationConfigName)
				return false, nil
			}
			return true, nil
		})
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("making the IsolationConfig: %w", err)
		}
		return nil
	}
}
