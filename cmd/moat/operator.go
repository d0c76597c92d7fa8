package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/moat-dev/moat/controllers/absence"
	"github.com/moat-dev/moat/controllers/appisolation"
	"github.com/moat-dev/moat/controllers/enforcement"
)

const (
	// leaderElectionID names the Lease of the operator that is at work.
	leaderElectionID = "moat-operator"

	// leaseDuration, renewWithin and renewEvery let a leader live through an API
	// server that doesn't answer for some seconds. To lose the lead is to restart,
	// and to list all pods again from a server that has too much to do already. A
	// leader that crashes is followed after leaseDuration; one that stops, at once.
	leaseDuration = 30 * time.Second
	renewWithin   = 20 * time.Second
	renewEvery    = 2 * time.Second // and how often those that wait check

	// gcPercent lets the heap grow by half until garbage is collected. Most of it are
	// the caches of pods and reports, which live long: on 5,000 nodes Go's default,
	// twice the heap, costs more memory than the work of collecting is worth.
	gcPercent = 50

	// readyWait bounds how long one readiness probe waits for the caches.
	readyWait = 500 * time.Millisecond
)

// operatorOptions are the operator's flags.
type operatorOptions struct {
	leaderElect    bool
	healthAddress  string
	metricsAddress string
	metricsLogin   bool
	pprofAddress   string
	agentNamespace string
	log            logOptions
	reporting      string
	absentAgents   string
}

func operatorFlags() (*flag.FlagSet, *operatorOptions) {
	flags, o := flag.NewFlagSet("operator", flag.ContinueOnError), &operatorOptions{}
	flags.BoolVar(&o.leaderElect, "leader-elect", true, "let one of several operators work at a time")
	flags.StringVar(&o.healthAddress, "health-address", ":8081", "`address` of /healthz and /readyz")
	flags.StringVar(&o.metricsAddress, "metrics-address", ":8080", "`address` of /metrics; 0 serves none")
	flags.BoolVar(&o.metricsLogin, "metrics-authentication", false, metricsLoginUsage)
	flags.StringVar(&o.pprofAddress, "pprof-address", "", "`address` on the loopback of /debug/pprof (default: serves none)")
	flags.StringVar(&o.agentNamespace, "agent-namespace", os.Getenv("POD_NAMESPACE"), "`namespace` of the agents' pods and of the operator's Lease (default $POD_NAMESPACE)")
	flags.StringVar(&o.reporting, "report-network-policies", string(enforcement.ReportAll), "`which` policies to report where they are enforced: All, Generated (those of AppIsolations) or None")
	flags.StringVar(&o.absentAgents, "absent-agents", string(absence.Ignore),
		"`what` to do where a node has no agent at work: Ignore, Report (status.agent and metrics), or Taint: let no new pods there too, where they would have no network")
	o.log.addFlags(flags)
	return flags, o
}

func (o *operatorOptions) validate() error {
	if o.agentNamespace == "" {
		return errors.New("--agent-namespace is empty: name the namespace that Moat is installed in, or set POD_NAMESPACE")
	}
	if _, err := enforcement.ParseReporting(o.reporting); err != nil {
		return fmt.Errorf("--report-network-policies %w", err)
	}
	if _, err := absence.ParseMode(o.absentAgents); err != nil {
		return fmt.Errorf("--absent-agents %w", err)
	}
	return errors.Join(validateAddresses(o.healthAddress, o.metricsAddress), validateLoopback("--pprof-address", o.pprofAddress))
}

// runOperator runs the operator until ctx ends.
func runOperator(ctx context.Context, args []string) error {
	flags, options := operatorFlags()
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	logger, err := newLogger(os.Stderr, options.log)
	if err := errors.Join(err, options.validate(), limitMemory()); err != nil {
		return &usageError{err: fmt.Errorf("operator: %w", err)}
	}
	kubeconfig, err := findAPIServer(logger)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	mgr, err := newOperator(ctx, kubeconfig, options)
	if err != nil {
		return err
	}
	logger.Info("starting the operator", "version", versionString(), "agentNamespace", options.agentNamespace)
	if err := startManager(ctx, mgr); err != nil {
		return fmt.Errorf("running the operator: %w", err)
	}
	return nil
}

// newOperator wires the controllers to a manager.
func newOperator(ctx context.Context, kubeconfig *rest.Config, options *operatorOptions) (manager.Manager, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	byObject, err := appisolation.CacheByObject()
	if err != nil {
		return nil, err
	}
	maps.Copy(byObject, enforcement.CacheByObject())
	absent := absence.Options{Namespace: options.agentNamespace, Mode: absence.Mode(options.absentAgents)}
	maps.Copy(byObject, absence.CacheByObject(options.agentNamespace))
	mgr, err := manager.New(kubeconfig, manager.Options{
		Scheme:                        scheme,
		Cache:                         cache.Options{DefaultTransform: cache.TransformStripManagedFields(), ByObject: byObject},
		Metrics:                       server.Options{BindAddress: noAddress}, // metricsPort serves them
		HealthProbeBindAddress:        options.healthAddress,
		PprofBindAddress:              options.pprofAddress,
		LeaderElection:                options.leaderElect,
		LeaderElectionID:              leaderElectionID,
		LeaderElectionNamespace:       options.agentNamespace,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 new(leaseDuration),
		RenewDeadline:                 new(renewWithin),
		RetryPeriod:                   new(renewEvery),
	})
	if err != nil {
		return nil, fmt.Errorf("setting up the operator: %w", err)
	}
	if err := appisolation.Setup(ctx, mgr, appisolation.Options{}); err != nil {
		return nil, err
	}
	report := enforcement.Options{AgentNamespace: options.agentNamespace, Reporting: enforcement.Reporting(options.reporting)}
	if err := enforcement.Setup(ctx, mgr, report); err != nil {
		return nil, err
	}
	if err := absence.Setup(mgr, absent); err != nil {
		return nil, err
	}
	if err := mgr.Add(appisolation.EnsureConfig(mgr.GetClient())); err != nil {
		return nil, fmt.Errorf("setting up the operator: %w", err)
	}
	if err := addChecks(mgr); err != nil {
		return nil, err
	}
	var rights *scrapeRights
	if options.metricsLogin {
		rights = newScrapeRights(mgr.GetClient())
	}
	serveMetrics(ctx, options.metricsAddress, rights, mgr.GetLogger().WithName("operator"))
	return mgr, nil
}

// addChecks makes /healthz say that the process answers, and /readyz that it
// sees the cluster.
func addChecks(mgr manager.Manager) error {
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding the health check: %w", err)
	}
	err := mgr.AddReadyzCheck("caches", func(request *http.Request) error {
		ctx, cancel := context.WithTimeout(request.Context(), readyWait)
		defer cancel()
		if !mgr.GetCache().WaitForCacheSync(ctx) {
			return errors.New("the caches are not filled yet")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("adding the readiness check: %w", err)
	}
	return nil
}
