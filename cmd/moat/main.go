// Command moat is the operator and the node agent of Moat in one binary.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/moat-dev/moat/cmd/moat/selftest"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

const usage = `Usage: moat <command> [flags]

Commands:
  operator        turn AppIsolations into NetworkPolicies and report on which nodes they are enforced
  agent           enforce the cluster's NetworkPolicies on this node
  agent cleanup   remove every trace of Moat from this node
  selftest        prove with packets that an AppIsolation is enforced; helm test runs it
  version         print the version
  help            print this text

"moat <command> --help" lists the flags of a command.
`

// version is set by the linker: -ldflags "-X main.version=v1.2.3".
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without its side effects on the process; it returns the exit code.
// The context ends the commands that run until they are stopped.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		_, _ = fmt.Fprint(stderr, usage)
		return exitUsage
	}
	switch command, rest := args[0], args[1:]; command {
	case "operator":
		return exitCode(runOperator(ctx, rest), stdout, stderr)
	case "agent":
		if len(rest) > 0 && rest[0] == "cleanup" {
			return exitCode(runCleanup(ctx, rest[1:], stdout), stdout, stderr)
		}
		return exitCode(runAgent(ctx, rest), stdout, stderr)
	case "selftest":
		if len(rest) > 0 && rest[0] == selftest.ServeCommand[1] {
			return exitCode(runSelftestServe(ctx, rest[1:]), stdout, stderr)
		}
		return exitCode(runSelftest(ctx, rest, stdout), stdout, stderr)
	case "version", "--version":
		_, _ = fmt.Fprintln(stdout, "moat", versionString())
		return exitOK
	case "help", "--help", "-h":
		_, _ = fmt.Fprint(stdout, usage)
		return exitOK
	default:
		_, _ = fmt.Fprintf(stderr, "moat: unknown command %q\n\n%s", command, usage)
		return exitUsage
	}
}

// usageError is a wrong flag or value: the user's to correct. A usageError
// around flag.ErrHelp carries the help text that the user asked for.
type usageError struct {
	err  error
	help string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// exitCode prints what a command returned and says how the process ends.
func exitCode(err error, stdout, stderr io.Writer) int {
	var wrong *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &wrong) && errors.Is(err, flag.ErrHelp):
		_, _ = fmt.Fprint(stdout, wrong.help)
		return exitOK
	case errors.As(err, &wrong):
		_, _ = fmt.Fprintf(stderr, "moat: %v\n", err)
		return exitUsage
	default:
		_, _ = fmt.Fprintf(stderr, "moat: %v\n", err)
		return exitError
	}
}

// parseFlags parses the arguments of a command, which takes flags only. Its
// errors are usageErrors.
func parseFlags(flags *flag.FlagSet, args []string) error {
	flags.Init(flags.Name(), flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	err := flags.Parse(args)
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q: %s takes flags only", flags.Arg(0), flags.Name())
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, flag.ErrHelp):
		return &usageError{err: err, help: flagHelp(flags)}
	default:
		return &usageError{err: fmt.Errorf("%s: %w; see \"moat %s --help\"", flags.Name(), err, flags.Name())}
	}
}

func flagHelp(flags *flag.FlagSet) string {
	var help strings.Builder
	_, _ = fmt.Fprintf(&help, "Usage: moat %s [flags]\n\n", flags.Name())
	flags.SetOutput(&help)
	flags.PrintDefaults()
	return help.String()
}

// versionString falls back on what the Go toolchain knows of the build.
func versionString() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
