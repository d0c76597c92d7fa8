package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/moat-dev/moat/dataplane"
	"github.com/moat-dev/moat/dataplane/departure"
	"github.com/moat-dev/moat/dataplane/departure/lookout"
	"github.com/moat-dev/moat/dataplane/health"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/lastword"
	"github.com/moat-dev/moat/dataplane/podstart/keeper"
	"github.com/moat-dev/moat/dataplane/policystore"
	"github.com/moat-dev/moat/dataplane/watch"
)

// defaultHealthAddress is where an agent answers unless it is told otherwise.
const defaultHealthAddress = "127.0.0.1:9471"

// agentOptions are the agent's flags.
type agentOptions struct {
	nodeName       string
	pod            health.Holder // the agent's own
	backend        string
	sysctlDir      string
	podStartGuard  string
	nriSocket      string
	antiSpoofing   string
	healthAddress  string
	metricsAddress string
	metricsLogin   bool
	pprofAddress   string
	budgets        budgetOptions
	log            logOptions
}

func agentFlags() (*flag.FlagSet, *agentOptions) {
	flags, o := flag.NewFlagSet("agent", flag.ContinueOnError), &agentOptions{}
	flags.StringVar(&o.nodeName, "node-name", os.Getenv("NODE_NAME"), "`name` of this node's Node object (default $NODE_NAME)")
	flags.StringVar(&o.pod.Namespace, "pod-namespace", os.Getenv("POD_NAMESPACE"), "`namespace` of this agent's pod (default $POD_NAMESPACE); without it the agent's rules always stay when it ends")
	flags.StringVar(&o.pod.Pod, "pod-name", os.Getenv("POD_NAME"), "`name` of this agent's pod (default $POD_NAME)")
	flags.StringVar(&o.backend, "iptables-backend", "auto", "auto, nft or legacy; auto uses the one that kubelet and kube-proxy use")
	flags.StringVar(&o.sysctlDir, "proc-sys-net", "/proc/sys/net", "`directory` where the node's /proc/sys/net can be written")
	flags.StringVar(&o.podStartGuard, "pod-start-guard", string(keeper.GuardAuto),
		"Auto, Always or Off: close a new pod until its rules are in force; Auto does from when the runtime's NRI is connected")
	flags.StringVar(&o.nriSocket, "nri-socket", "/var/run/nri/nri.sock", "`path` of the container runtime's NRI socket")
	flags.StringVar(&o.antiSpoofing, "anti-spoofing", string(dataplane.SpoofingCount),
		"Off, Count or Drop: what is done about packets that a pod sends with a source address that isn't its own; needs the runtime's NRI, and the network namespaces in /run/netns")
	flags.StringVar(&o.healthAddress, "health-address", defaultHealthAddress, "`address` of /healthz and /readyz")
	flags.StringVar(&o.metricsAddress, "metrics-address", ":9470", "`address` of /metrics; 0 serves none")
	flags.BoolVar(&o.metricsLogin, "metrics-authentication", false, metricsLoginUsage)
	flags.StringVar(&o.pprofAddress, "pprof-address", "", "`address` on the loopback of /debug/pprof (default: serves none)")
	o.budgets.addFlags(flags)
	o.log.addFlags(flags)
	return flags, o
}

// backends maps the values of --iptables-backend.
var backends = map[string]iptables.Backend{"auto": "", "nft": iptables.NFT, "legacy": iptables.Legacy}

func (o *agentOptions) validate() error {
	if o.nodeName == "" {
		return errors.New("--node-name is empty: name this node, or set NODE_NAME")
	}
	if _, known := backends[o.backend]; !known {
		return fmt.Errorf("--iptables-backend %q: use auto, nft or legacy", o.backend)
	}
	switch keeper.Mode(o.podStartGuard) {
	case keeper.GuardAuto, keeper.GuardAlways, keeper.GuardOff:
	default:
		return fmt.Errorf("--pod-start-guard %q: use Auto, Always or Off", o.podStartGuard)
	}
	switch dataplane.AntiSpoofing(o.antiSpoofing) {
	case dataplane.SpoofingOff, dataplane.SpoofingCount, dataplane.SpoofingDrop:
	default:
		return fmt.Errorf("--anti-spoofing %q: use Off, Count or Drop", o.antiSpoofing)
	}
	if _, err := o.budgets.limits(); err != nil {
		return err
	}
	return errors.Join(o.budgets.validateMode(), validateAddresses(o.healthAddress, o.metricsAddress), validateLoopback("--pprof-address", o.pprofAddress))
}

// validateLoopback refuses an address that others than the node can reach: a profile costs the
// program CPU, and shows what it has in its memory.
func validateLoopback(flag, address string) error {
	if address == "" {
		return nil
	}
	if err := validateAddress(flag, address); err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(address)
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return fmt.Errorf("%s %q: has to be on the loopback, such as 127.0.0.1:6060", flag, address)
	}
	return nil
}

// runAgent runs the agent until ctx ends. Whether the node's rules stay then is decided
// while the agent still enforces.
func runAgent(ctx context.Context, args []string) error {
	flags, options := agentFlags()
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	logger, err := newLogger(os.Stderr, options.log)
	if err := errors.Join(err, options.validate(), limitMemory()); err != nil {
		return &usageError{err: fmt.Errorf("agent: %w", err)}
	}
	// vishvananda/netlink prints each attribute that it does not know to the
	// standard logger, which nothing else uses.
	log.SetOutput(io.Discard)
	kubeconfig, err := findAPIServer(logger)
	if err != nil {
		return err
	}
	watch.GatherEvents(kubeconfig)
	useOneCore()
	port, err := health.Claim(ctx, options.healthAddress, options.pod, logger)
	if ctx.Err() != nil { // it was told to end before it began
		return nil
	}
	if err != nil {
		return err
	}
	defer port.Close()
	// The agent's manager outlives ctx: the agent enforces until it is decided what
	// happens to its rules.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	a, err := newAgent(running, kubeconfig, options)
	if err != nil {
		return err
	}
	port.Serve(a.dataplane.Checks())
	logger.Info("starting the agent", "version", versionString(), "node", options.nodeName, "apiServer", kubeconfig.Host)
	decided := a.decideAtEnd(ctx, running, stop)
	if err := startManager(running, a.manager); err != nil {
		return fmt.Errorf("running the agent: %w", err)
	}
	decision := <-decided
	if err := carryOut(decision, logger.WithName("agent")); err != nil {
		return err
	}
	if decision.Verdict == departure.Clean {
		a.withdraw()
	}
	return nil
}

// useOneCore makes Go run the agent on one core at a time, unless GOMAXPROCS says
// otherwise. What an agent does goes from hand to hand, most of it in order: Go wakes a
// second thread with each event, which finds nothing to do. That takes more than it saves,
// even while the first lists are decoded.
func useOneCore() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
}

// agent is the parts of a running agent.
type agent struct {
	manager   manager.Manager
	dataplane *dataplane.Agent
	node      string
	lookout   *lookout.Lookout // nil where the agent doesn't know its namespace
	live      client.Client    // past any cache; nil where lookout is
	log       logr.Logger
}

// newAgent wires the dataplane to a manager.
func newAgent(ctx context.Context, kubeconfig *rest.Config, options *agentOptions) (*agent, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	limits, err := options.budgets.limits()
	if err != nil {
		return nil, err
	}
	words, policies := lastword.New(), policystore.New(policyMemory())
	managerOptions := watch.ManagerOptions(scheme, options.nodeName, words, policies)
	managerOptions.Metrics = server.Options{BindAddress: noAddress} // metricsPort serves them
	managerOptions.PprofBindAddress = options.pprofAddress
	mgr, err := manager.New(kubeconfig, managerOptions)
	if err != nil {
		return nil, fmt.Errorf("setting up the agent: %w", err)
	}
	a := &agent{manager: mgr, node: options.nodeName, log: mgr.GetLogger().WithName("agent").WithValues("node", options.nodeName)}
	a.dataplane, err = dataplane.Setup(ctx, mgr, dataplane.Options{
		NodeName:      options.nodeName,
		Backend:       backends[options.backend],
		SysctlDir:     options.sysctlDir,
		PodStartGuard: keeper.Mode(options.podStartGuard),
		NRISocket:     options.nriSocket,
		AntiSpoofing:  dataplane.AntiSpoofing(options.antiSpoofing),
		Namespace:     options.pod.Namespace,
		Words:         words,
		Policies:      policies,
		Budgets:       limits,
		BudgetMode:    dataplane.BudgetMode(options.budgets.mode),
	})
	if err == nil {
		var rights *scrapeRights
		if options.metricsLogin {
			rights = newScrapeRights(mgr.GetClient())
		}
		serveMetrics(ctx, options.metricsAddress, rights, a.log)
	}
	if err != nil || options.pod.Namespace == "" {
		return a, err
	}
	reader, err := client.NewWithWatch(kubeconfig, client.Options{Scheme: scheme, Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return nil, fmt.Errorf("setting up the agent: %w", err)
	}
	self := lookout.Self{Namespace: options.pod.Namespace, Pod: options.pod.Pod, Node: options.nodeName}
	a.live, a.lookout = reader, lookout.New(reader, self, a.log)
	return a, nil
}
