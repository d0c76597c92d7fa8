//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// adminKubeconfig is the administrator's.
var adminKubeconfig = filepath.Join(stateDir, "kubeconfig")

// kubectl runs the administrator's kubectl for this program and returns what it
// prints.
func kubectl(r *record, input string, args ...string) (string, error) {
	cmd := exec.Command(r.Binaries["kubectl"], args...)
	cmd.Env = clientEnv(os.Environ())
	cmd.Stdin = strings.NewReader(input)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := theControlPlane().inNetns(cmd.Run); err != nil {
		return stdout.String(), fmt.Errorf("running kubectl %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// clientEnv is the environment for kubectl and helm: with the cluster's
// kubeconfig, and without the user's proxies, which no namespace can reach.
func clientEnv(environ []string) []string {
	env := []string{"KUBECONFIG=" + adminKubeconfig}
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		switch strings.ToUpper(name) {
		case "KUBECONFIG", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY":
		default:
			env = append(env, variable)
		}
	}
	return env
}
