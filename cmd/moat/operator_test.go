package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmd "k8s.io/client-go/tools/clientcmd/api/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/internal/apiservertest"
)

var apiServer = apiservertest.Server{Admission: true}

func TestMain(m *testing.M) {
	os.Exit(apiServer.Run(m))
}

// kubeconfigFor writes a kubeconfig for an address.
func kubeconfigFor(t *testing.T, address string) string {
	t.Helper()
	config := clientcmd.Config{
		APIVersion: "v1", Kind: "Config", CurrentContext: "test",
		Clusters: []clientcmd.NamedCluster{{Name: "test", Cluster: clientcmd.Cluster{Server: address}}},
		Contexts: []clientcmd.NamedContext{{Name: "test", Context: clientcmd.Context{Cluster: "test"}}},
	}
	text, err := yaml.Marshal(config)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return path
}

// TestOperator runs all that `moat operator` runs, with the rights of the
// operator's role, leader election and health checks included.
func TestOperator(t *testing.T) {
	admin, namespace := apiServer.Admin(t), apiServer.Namespace(t)
	health, metrics := apiservertest.Address(t), apiservertest.Address(t)
	mgr, err := newOperator(t.Context(), apiServer.Operator(t), &operatorOptions{
		leaderElect: true, healthAddress: health, metricsAddress: metrics, agentNamespace: apiservertest.OperatorNamespace, reporting: "All", absentAgents: "Taint",
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- mgr.Start(ctx) }()

	app := &v1alpha1.AppIsolation{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "db"},
		Spec:       v1alpha1.AppIsolationSpec{Selector: &v1alpha1.LabelSelector{}, Directions: []v1alpha1.Direction{v1alpha1.DirectionIngress}},
	}
	require.NoError(t, admin.Create(ctx, app))
	require.Eventually(t, func() bool {
		require.NoError(t, admin.Get(ctx, client.ObjectKeyFromObject(app), app))
		return meta.IsStatusConditionTrue(app.Status.Conditions, v1alpha1.ConditionReady)
	}, apiservertest.Eventually, apiservertest.Tick, "AppIsolation ready")
	config := &v1alpha1.IsolationConfig{}
	require.Eventually(t, func() bool {
		return admin.Get(ctx, client.ObjectKey{Name: v1alpha1.IsolationConfigName}, config) == nil
	}, apiservertest.Eventually, apiservertest.Tick, "the IsolationConfig is made")
	require.Len(t, config.Spec.DNS.Ports, 2, "the API's defaults")
	for _, path := range []string{"healthz", "readyz"} {
		requireOK(t, fmt.Sprintf("http://%s/%s", health, path))
	}
	requireOK(t, fmt.Sprintf("http://%s/metrics", metrics))

	cancel()
	require.NoError(t, <-stopped)
	lease := &coordinationv1.Lease{}
	key := client.ObjectKey{Namespace: apiservertest.OperatorNamespace, Name: leaderElectionID}
	require.NoError(t, admin.Get(t.Context(), key, lease))
	require.Empty(t, *lease.Spec.HolderIdentity, "a stopped operator gives the lease back")
}

func requireOK(t *testing.T, url string) {
	t.Helper()
	connection := &http.Client{Timeout: 5 * time.Second}
	response, err := connection.Get(url)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode, url)
}
