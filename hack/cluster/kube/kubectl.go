//go:build linux

package kube

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/moat-dev/moat/hack/cluster/machine"
)

// AdminKubeconfig is the administrator's, who may do everything.
var AdminKubeconfig = filepath.Join(machine.StateDir, "kubeconfig")

// Kubectl runs the administrator's kubectl for this program and returns what it
// prints.
func Kubectl(r *machine.Record, input string, args ...string) (string, error) {
	cmd := exec.Command(r.Binaries["kubectl"], args...)
	cmd.Env = ClientEnv(os.Environ())
	cmd.Stdin = strings.NewReader(input)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := machine.ControlPlane().InNetns(cmd.Run); err != nil {
		return stdout.String(), fmt.Errorf("running kubectl %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// ClientEnv is the environment for kubectl and helm: with the cluster's
// kubeconfig, and without the user's proxies, which no namespace can reach.
func ClientEnv(environ []string) []string {
	env := []string{"KUBECONFIG=" + AdminKubeconfig}
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
