package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/moat-dev/moat/controllers/uninstall"
)

const uninstallHelp = `
Stops the agents and empties every node of what they wrote, and says which nodes are
done. From then on no NetworkPolicy is enforced. "helm uninstall" runs it before it
removes anything. It changes the DaemonSet moat-agent, whose pods then run
"moat agent cleanup --stay". It ends with 1, and says which nodes and why, where some
aren't clean when the time is over.
`

// uninstallOptions are the flags of uninstall.
type uninstallOptions struct {
	namespace string
	timeout   time.Duration
}

func uninstallFlags() (*flag.FlagSet, *uninstallOptions) {
	flags, o := flag.NewFlagSet("uninstall", flag.ContinueOnError), &uninstallOptions{}
	flags.StringVar(&o.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "`namespace` of the agents (default $POD_NAMESPACE)")
	flags.DurationVar(&o.timeout, "timeout", 3*time.Minute, "how long the nodes may take")
	return flags, o
}

func (o *uninstallOptions) validate() error {
	if o.namespace == "" {
		return errors.New("--namespace is empty: name the namespace that Moat is installed in, or set POD_NAMESPACE")
	}
	if o.timeout <= 0 {
		return fmt.Errorf("--timeout %s: has to be above 0", o.timeout)
	}
	return nil
}

// runUninstall empties all nodes.
func runUninstall(ctx context.Context, args []string, stdout io.Writer) error {
	flags, options := uninstallFlags()
	if err := parseFlags(flags, args); err != nil {
		if wrong := (*usageError)(nil); errors.As(err, &wrong) && wrong.help != "" {
			wrong.help += uninstallHelp
		}
		return err
	}
	if err := options.validate(); err != nil {
		return &usageError{err: fmt.Errorf("uninstall: %w", err)}
	}
	logger, err := newLogger(os.Stderr, defaultLog)
	if err != nil {
		return err
	}
	cluster, err := newClient(logger)
	if err != nil {
		return err
	}
	uninstaller := uninstall.Uninstaller{Client: cluster, Namespace: options.namespace, Timeout: options.timeout, Out: stdout}
	if err := uninstaller.Run(ctx); err != nil {
		return fmt.Errorf("uninstalling: %w", err)
	}
	return nil
}
