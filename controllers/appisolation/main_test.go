package appisolation

import (
	"context"
	"os"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/moat-dev/moat/controllers/apiservertest"
)

var server apiservertest.Server

func TestMain(m *testing.M) {
	os.Exit(server.Run(m))
}

// startController runs the controller, for one namespace, with the operator's
// rights.
func startController(t *testing.T, namespace string) {
	t.Helper()
	options := cache.Options{DefaultNamespaces: map[string]cache.Config{namespace: {}}}
	server.StartManager(t, options, func(_ context.Context, mgr manager.Manager) error { return Setup(mgr) })
}
