package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/moat-dev/moat/controllers/removal"
)

const checkRemovalHelp = `
Looks for nodes that the removal of Moat would leave with Moat's rules: the node is
NotReady, its agent doesn't run, or none is placed there. It only reads. It ends with 1
where it finds some, names them, and says what to do. "helm uninstall" runs it before
anything is removed. The agents clean their nodes themselves when Moat is removed.
`

// checkRemovalOptions are the flags of check-removal.
type checkRemovalOptions struct {
	namespace string
	patience  time.Duration
}

func checkRemovalFlags() (*flag.FlagSet, *checkRemovalOptions) {
	flags, o := flag.NewFlagSet("check-removal", flag.ContinueOnError), &checkRemovalOptions{}
	flags.StringVar(&o.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "`namespace` of the agents (default $POD_NAMESPACE)")
	flags.DurationVar(&o.patience, "patience", 20*time.Second, "how long to wait for agents that are starting")
	return flags, o
}

func (o *checkRemovalOptions) validate() error {
	if o.namespace == "" {
		return errors.New("--namespace is empty: name the namespace that Moat is installed in, or set POD_NAMESPACE")
	}
	if o.patience < 0 {
		return fmt.Errorf("--patience %s: may not be below 0", o.patience)
	}
	return nil
}

// runCheckRemoval says which nodes removal doesn't reach.
func runCheckRemoval(ctx context.Context, args []string, stdout io.Writer) error {
	flags, options := checkRemovalFlags()
	if err := parseFlags(flags, args); err != nil {
		if wrong := (*usageError)(nil); errors.As(err, &wrong) && wrong.help != "" {
			wrong.help += checkRemovalHelp
		}
		return err
	}
	if err := options.validate(); err != nil {
		return &usageError{err: fmt.Errorf("check-removal: %w", err)}
	}
	logger, err := newLogger(os.Stderr, defaultLog)
	if err != nil {
		return err
	}
	cluster, err := newClient(logger)
	if err != nil {
		return err
	}
	check := removal.Check{Client: cluster, Namespace: options.namespace, Patience: options.patience, Out: stdout}
	if err := check.Run(ctx); err != nil {
		return fmt.Errorf("checking the removal: %w", err)
	}
	return nil
}
