//go:build linux

package build

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

var versionPattern = regexp.MustCompile(`\bv?(\d+\.\d+\.\d+[-+.\w]*)`)

// printedVersion is the first version in what a program prints about itself, as
// vX.Y.Z with all that follows: v1.37.2+k3s1 is not v1.37.2.
func printedVersion(output string) string {
	found := versionPattern.FindStringSubmatch(output)
	if found == nil {
		return ""
	}
	return "v" + strings.TrimRight(found[1], ".")
}

// readyBinary looks for b, in the version wanted, among the machine's ready
// binaries: $MOAT_CLUSTER_BIN first, then the component's folders or PATH.
func readyBinary(c component, b binary, version string) (string, bool) {
	for _, dir := range readyFolders(c) {
		path, err := filepath.Abs(filepath.Join(dir, b.name))
		if err == nil && isProgram(path) && askVersion(path, b.versionCmd) == version {
			return path, true
		}
	}
	return "", false
}

func readyFolders(c component) []string {
	var dirs []string
	if dir := os.Getenv("MOAT_CLUSTER_BIN"); dir != "" {
		dirs = append(dirs, dir)
	}
	if c.searchPath != nil {
		return append(dirs, c.searchPath...)
	}
	return append(dirs, filepath.SplitList(os.Getenv("PATH"))...)
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// askVersion runs the program; an exit code is of no matter, since a CNI plugin
// prints its version and fails for want of input.
func askVersion(path string, args []string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, path, args...).CombinedOutput()
	return printedVersion(string(out))
}
