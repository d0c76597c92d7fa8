package policyproof

import (
	"context"
	"os"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/moat-dev/moat/controllers/enforcement/enforcementtest"
	"github.com/moat-dev/moat/controllers/enforcement/survey"
	"github.com/moat-dev/moat/internal/apiservertest"
)

var server apiservertest.Server

func TestMain(m *testing.M) {
	os.Exit(server.Run(m))
}

func newCluster(t *testing.T) *enforcementtest.Cluster {
	t.Helper()
	return enforcementtest.New(t, &server, enforcementtest.Options{
		CacheByObject: survey.CacheByObject(),
		WriteEvery:    time.Nanosecond,
		Setup: func(ctx context.Context, mgr manager.Manager) error {
			if err := survey.AddIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
				return err
			}
			return Setup(mgr, Options{AgentNamespace: apiservertest.OperatorNamespace, WriteEvery: time.Nanosecond})
		},
	})
}
