package enforcement

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/moat-dev/moat/controllers/enforcement/appstatus"
	"github.com/moat-dev/moat/controllers/enforcement/policyproof"
	"github.com/moat-dev/moat/controllers/enforcement/survey"
)

// Reporting says of which policies the operator reports where they are enforced.
type Reporting string

const (
	// ReportAll reports of every policy: of generated ones in the status of their
	// AppIsolation, of hand-written ones in a PolicyEnforcement.
	ReportAll Reporting = "All"
	// ReportGenerated reports of generated policies alone.
	ReportGenerated Reporting = "Generated"
	// ReportNone reports of none. Policies are enforced all the same.
	ReportNone Reporting = "None"
)

// Options of the two controllers.
type Options struct {
	// AgentNamespace is where the agents' pods run.
	AgentNamespace string
	Reporting      Reporting

	// writeEvery is set by tests; zero: pace.Every.
	writeEvery time.Duration
}

// CacheByObject returns how the manager's cache must hold the objects that the controllers read
// by the thousand. They are shared: nothing may write to them.
func CacheByObject() map[client.Object]cache.ByObject { return survey.CacheByObject() }

// Setup adds the controllers to the manager, whose cache must follow CacheByObject.
func Setup(ctx context.Context, mgr manager.Manager, options Options) error {
	if err := survey.AddIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	if err := setupPolicies(mgr, options); err != nil {
		return err
	}
	return appstatus.Setup(mgr, appstatus.Options{
		AgentNamespace: options.AgentNamespace,
		ReportingOff:   options.Reporting == ReportNone,
		WriteEvery:     options.writeEvery,
	})
}

func setupPolicies(mgr manager.Manager, options Options) error {
	if options.Reporting != ReportAll {
		return policyproof.SetupWithdrawal(mgr)
	}
	return policyproof.Setup(mgr, policyproof.Options{AgentNamespace: options.AgentNamespace, WriteEvery: options.writeEvery})
}

// ParseReporting reads the value of a flag.
func ParseReporting(text string) (Reporting, error) {
	switch reporting := Reporting(text); reporting {
	case ReportAll, ReportGenerated, ReportNone:
		return reporting, nil
	}
	return "", fmt.Errorf("%q: use %s, %s or %s", text, ReportAll, ReportGenerated, ReportNone)
}
