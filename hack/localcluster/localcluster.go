// Package localcluster runs programs against the cluster that hack/cluster starts. The
// demonstration and the tests of the roads in and out use it.
//
// Its paths are relative to the root of the checkout.
package localcluster

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Program is hack/cluster, compiled: whoever uses the cluster starts it often.
const Program = "bin/moat-cluster"

// Compile returns the command that compiles Program.
func Compile() []string {
	return []string{"go", "build", "-C", "hack", "-o", "../" + Program, "./cluster"}
}

// endsWithin is how long a command that was told to end may take for it.
const endsWithin = 10 * time.Second

// Command prepares what a user types. kubectl, helm and "exec" are hack/cluster's: they
// run in the cluster's network. The command is told to end (SIGTERM) when ctx is.
func Command(ctx context.Context, args []string) *exec.Cmd {
	if ofProgram(args[0]) || args[0] == "kubectl" || args[0] == "helm" {
		args = append([]string{Program}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = endsWithin
	return cmd
}

// ofProgram says that a word is a command of hack/cluster and of nothing else.
func ofProgram(word string) bool {
	switch word {
	case "exec", "up", "load-image":
		return true
	}
	return false
}

// Typed is a command as a user types it.
func Typed(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = arg
		if arg == "" || strings.ContainsAny(arg, " \"'{}[]$*|&;<>()") {
			words[i] = "'" + arg + "'"
		}
	}
	if ofProgram(args[0]) {
		words = append([]string{"hack/cluster.sh"}, words...)
	}
	return strings.Join(words, " ")
}

// CacheDir is where hack/cluster and hack/image keep what they build.
func CacheDir() string {
	if dir := os.Getenv("MOAT_CACHE"); dir != "" {
		return dir
	}
	return filepath.Join(os.Getenv("HOME"), ".cache", "moat")
}

// ImageFile is what hack/image/build.sh makes of Moat's image with that tag.
func ImageFile(tag string) string {
	return filepath.Join(CacheDir(), "images", "moat-"+tag+".tar")
}

// TracesCommand prints all that the node's packet filter holds; see Traces.
func TracesCommand(node string) []string {
	return []string{"exec", node, "--", "sh", "-ec", "iptables-nft-save; ip6tables-nft-save; iptables-legacy-save; ip6tables-legacy-save; ipset save"}
}

// Traces returns the lines about Moat of what TracesCommand printed.
func Traces(dump string) string {
	var lines []string
	for line := range strings.Lines(dump) {
		if strings.Contains(line, "MOAT-") || strings.Contains(line, "MOAT_") || strings.Contains(line, "moat-") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
