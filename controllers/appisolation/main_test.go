package appisolation

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/moat-dev/moat/internal/apiservertest"

	"github.com/moat-dev/moat/controllers/appisolation/isolation"
)

var server = apiservertest.Server{Admission: true}

func TestMain(m *testing.M) {
	os.Exit(server.Run(m))
}

// startController runs the controller, for one namespace, with the operator's
// rights. It reports without delay.
func startController(t *testing.T, namespace string) {
	t.Helper()
	startControllerOf(t, namespace, Options{StatusEvery: time.Nanosecond})
}

func startControllerOf(t *testing.T, namespace string, options Options) {
	t.Helper()
	byObject, err := CacheByObject()
	require.NoError(t, err)
	held := cache.Options{ByObject: byObject, DefaultNamespaces: map[string]cache.Config{namespace: {}, isolation.APIServerSlice.Namespace: {}}}
	server.StartManager(t, held, func(ctx context.Context, mgr manager.Manager) error { return Setup(ctx, mgr, options) })
}
