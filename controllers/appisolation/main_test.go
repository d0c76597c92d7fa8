package appisolation

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/moat-dev/moat/controllers/apiservertest"
)

var server = apiservertest.Server{Admission: true}

func TestMain(m *testing.M) {
	os.Exit(server.Run(m))
}

// startController runs the controller, for one namespace, with the operator's
// rights.
func startController(t *testing.T, namespace string) {
	t.Helper()
	byObject, err := CacheByObject()
	require.NoError(t, err)
	options := cache.Options{ByObject: byObject, DefaultNamespaces: map[string]cache.Config{namespace: {}, apiServerService.Namespace: {}}}
	server.StartManager(t, options, Setup)
}
