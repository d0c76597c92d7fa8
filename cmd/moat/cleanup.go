package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"

	"github.com/moat-dev/moat/dataplane"
	"github.com/moat-dev/moat/dataplane/health"
)

const cleanupHelp = `
Removes every trace of Moat from the node that it runs on: the hooks and chains
MOAT-* and MOAT_* in iptables-nft and iptables-legacy, IPv4 and IPv6, and all ipsets moat-*.
Nothing else is touched. It asks no API server and may run any number of times.

From then on the node enforces no NetworkPolicy. Uninstall Moat first: an agent
that runs would put everything back, so the command refuses while one answers at
its health address.

It needs root with NET_ADMIN in the node's network, and with iptables-legacy the
node's /run/xtables.lock. It ends with 1, and says why, where something is left.
The sysctl net.bridge.bridge-nf-call-iptables stays as it is, since kube-proxy
needs it too.

With --stay it goes on running when the node is clean, and answers /healthz and
/readyz at the health address: so the pods of a DaemonSet say which nodes are done.
`

// cleanupOptions are the flags of cleanup.
type cleanupOptions struct {
	healthAddress string
	stay          bool
}

func cleanupFlags() (*flag.FlagSet, *cleanupOptions) {
	flags, o := flag.NewFlagSet("agent cleanup", flag.ContinueOnError), &cleanupOptions{}
	flags.StringVar(&o.healthAddress, "health-address", defaultHealthAddress, "`address` at which an agent of this node would answer")
	flags.BoolVar(&o.stay, "stay", false, "when the node is clean, answer health checks until stopped")
	return flags, o
}

// runCleanup removes what agents left on this node. It ends then, or stays until ctx
// ends.
func runCleanup(ctx context.Context, args []string, stdout io.Writer) error {
	flags, options := cleanupFlags()
	if err := parseFlags(flags, args); err != nil {
		if wrong := (*usageError)(nil); errors.As(err, &wrong) && wrong.help != "" {
			wrong.help += cleanupHelp
		}
		return err
	}
	if err := validateAddress("--health-address", options.healthAddress); err != nil {
		return &usageError{err: fmt.Errorf("agent cleanup: %w", err)}
	}
	log.SetOutput(io.Discard) // as the agent does
	if err := dataplane.Cleanup(ctx, options.healthAddress, stdout); err != nil {
		return fmt.Errorf("cleaning up the node: %w", err)
	}
	if _, err := fmt.Fprintln(stdout, "nothing of Moat is left on this node"); err != nil || !options.stay {
		return err
	}
	return health.Stay(ctx, options.healthAddress)
}
