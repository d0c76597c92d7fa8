package apiservertest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// OperatorNamespace is the namespace that config installs Moat in.
const OperatorNamespace = "moat-system"

// Bounds for what controllers do in the background.
const (
	// Eventually is long enough for a reaction on a busy machine.
	Eventually = 20 * time.Second
	// Tick is how often to look.
	Tick = 20 * time.Millisecond
	// Never is how long to look for what must not happen.
	Never = 1500 * time.Millisecond
)

// StartManager runs controllers as the operator until the test ends.
func (s *Server) StartManager(t *testing.T, options cache.Options, setup func(context.Context, manager.Manager) error) {
	t.Helper()
	skipNameValidation := true // Each test has a manager of its own.
	mgr, err := manager.New(s.Operator(t), manager.Options{
		Scheme:     NewScheme(),
		Cache:      options,
		Metrics:    server.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: &skipNameValidation},
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	require.NoError(t, setup(ctx, mgr))

	stopped := make(chan error, 1)
	go func() { stopped <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-stopped)
	})
	require.True(t, mgr.GetCache().WaitForCacheSync(ctx))
}
