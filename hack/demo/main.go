// Command demo shows Moat at work, from nothing: it builds and starts a real
// cluster, installs the chart and upgrades it, and walks through isolating a database,
// first by a NetworkPolicy and then by an AppIsolation. Every step sends real packets and
// compares their fate with what is expected. At the end Moat is uninstalled; the
// cluster stays up.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

const usage = `Usage: hack/run.sh demo [DOCUMENT.md...]

Runs the whole demonstration; needs Linux and root. It can be run again on the cluster
that it leaves. Remove that one with: hack/cluster.sh down

With documents it runs, on the same cluster, the commands in their console blocks
instead, and compares what these print with what the documents say.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	unfit := requireLinux(runtime.GOOS)
	switch {
	case len(args) == 1 && (args[0] == "help" || args[0] == "-h" || args[0] == "--help"):
		fmt.Print(usage)
		return 0
	case unfit != nil:
		return report(unfit)
	case len(args) > 1 && args[0] == listenCommand:
		return report(listen(ctx, args[1:]))
	case len(args) > 1 && args[0] == pingerCommand:
		return report(pingAll(args[1:], os.Stdin, os.Stdout))
	case len(args) > 0 && !slices.ContainsFunc(args, notMarkdown):
		return report(followDocuments(ctx, args))
	case len(args) > 0:
		fmt.Fprintf(os.Stderr, "demo: unexpected argument %q\n\n%s", args[0], usage)
		return 2
	}
	return report(demonstrate(ctx))
}

// requireLinux says what to use instead of a system that has no network namespaces.
func requireLinux(system string) error {
	if system == "linux" {
		return nil
	}
	return fmt.Errorf("the demo's nodes are Linux network namespaces, and %s has none: use a Linux machine or VM", system)
}

func notMarkdown(name string) bool { return !strings.HasSuffix(name, ".md") }

func report(err error) int {
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		return 1
	}
	return 0
}

// errDifference says that a step went otherwise than expected.
var errDifference = errors.New("the table shows what went otherwise than expected")

func demonstrate(ctx context.Context) error {
	shell, err := newShell(ctx)
	if err != nil {
		return err
	}
	d := &demo{shell: shell}
	defer d.endListeners()

	d.setUp()
	d.withUpgrade()
	d.withHelmTest()
	d.withNetworkPolicy()
	d.withAppIsolation()
	d.withPodStarts()
	d.withForgedReport()
	d.withUninstall()

	if d.interrupted() {
		return d.err
	}
	d.printTable()
	switch {
	case d.err != nil:
		d.diagnose()
		return d.err
	case d.differences() > 0:
		return errDifference
	}
	d.printNext()
	return nil
}
