package enforcement

import (
	"context"
	"os"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/moat-dev/moat/controllers/enforcement/enforcementtest"
	"github.com/moat-dev/moat/internal/apiservertest"
)

var server apiservertest.Server

func TestMain(m *testing.M) {
	os.Exit(server.Run(m))
}

func newCluster(t *testing.T) *enforcementtest.Cluster {
	t.Helper()
	return newReportingCluster(t, ReportAll)
}

// newReportingCluster sees the further namespaces too.
func newReportingCluster(t *testing.T, reporting Reporting, further ...string) *enforcementtest.Cluster {
	t.Helper()
	return newClusterOf(t, reporting, time.Nanosecond, further...)
}

// newClusterOf has the controllers write a status not more often than that; zero: as they are
// shipped.
func newClusterOf(t *testing.T, reporting Reporting, writeEvery time.Duration, further ...string) *enforcementtest.Cluster {
	t.Helper()
	return enforcementtest.New(t, &server, enforcementtest.Options{
		CacheByObject: CacheByObject(),
		WriteEvery:    writeEvery,
		Namespaces:    further,
		Setup: func(ctx context.Context, mgr manager.Manager) error {
			return Setup(ctx, mgr, Options{AgentNamespace: apiservertest.OperatorNamespace, Reporting: reporting, writeEvery: writeEvery})
		},
	})
}
