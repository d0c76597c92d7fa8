package appstatus

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/moat-dev/moat/apis/v1alpha1"
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
	return newClusterOf(t, time.Nanosecond)
}

// newClusterOf has the controllers write a status not more often than that; zero: as they are
// shipped.
func newClusterOf(t *testing.T, writeEvery time.Duration) *enforcementtest.Cluster {
	t.Helper()
	return enforcementtest.New(t, &server, enforcementtest.Options{
		CacheByObject: survey.CacheByObject(),
		WriteEvery:    writeEvery,
		Setup: func(ctx context.Context, mgr manager.Manager) error {
			if err := survey.AddIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
				return err
			}
			return Setup(mgr, Options{AgentNamespace: apiservertest.OperatorNamespace, WriteEvery: writeEvery})
		},
	})
}

func names(failures []v1alpha1.NodeFailure) []string {
	var names []string
	for _, failure := range failures {
		names = append(names, fmt.Sprint(failure.NodeName, " ", failure.Reason))
	}
	slices.Sort(names)
	return names
}
