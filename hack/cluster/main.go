//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/moat-dev/moat/hack/cluster/machine"
)

const usage = `Usage: hack/cluster.sh COMMAND

  build [--assets] [NAME...]   build components or single binaries into the cache (all, if none is named);
                               --assets prints one folder that holds the binaries named
  images                       build the test images (pause, busybox, nginx) into the cache, print their files
  up [--nodes N] [--network vxlan|hostgw] [--ip-family ipv4|dual] [--proxy-mode iptables|nftables]
                               start the cluster; ends when every node is Ready
  status                       show processes, nodes and options
  kubectl ARGS..., helm ARGS...
                               run kubectl or helm against the cluster
  kubeconfig                   print the path of the administrator's kubeconfig
  exec NODE|world|control-plane -- COMMAND...
                               run a command in that network namespace
  load-image FILE.tar...       import docker-archive files on every node
  down [--force]               remove the cluster; --force also if another checkout started it

Environment: MOAT_CACHE is the cache folder (default ~/.cache/moat);
MOAT_CLUSTER_BIN is a folder of ready binaries, taken where their version is the pinned one.
`

// usageError is a mistake on the command line: exit code 2.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return usageError{fmt.Sprintf(format, args...)}
}

var commands = map[string]func(args []string) error{
	"build":             buildCommand,
	"images":            imagesCommand,
	"up":                upCommand,
	"status":            statusCommand,
	"kubectl":           kubectlCommand,
	"helm":              helmCommand,
	"kubeconfig":        kubeconfigCommand,
	"exec":              execCommand,
	"load-image":        loadImageCommand,
	"down":              downCommand,
	machine.InitCommand: initMachine,
}

// initMachine makes this process the init of a machine. Package machine starts this program
// again for it.
func initMachine(args []string) error {
	if os.Getpid() != 1 || len(args) != 1 {
		return usagef("init is for internal use")
	}
	return machine.RunInit(args[0])
}

// The main goroutine keeps the first thread: /proc/self shows that thread, and no
// other may change its namespaces.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	switch os.Args[1] {
	case "help", "-h", "--help":
		fmt.Print(usage)
		return
	}
	run, ok := commands[os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "cluster: unknown command %q\n\n%s", os.Args[1], usage)
		os.Exit(2)
	}
	os.Exit(exitCode(run(os.Args[2:])))
}

// exitCode prints what went wrong and chooses the code: 2 for a wrong command
// line, and for a command run on the user's behalf that command's own.
func exitCode(err error) int {
	var command userCommandError
	var wrong usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &command):
		return command.code()
	}
	fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
	if errors.As(err, &wrong) {
		return 2
	}
	return 1
}
