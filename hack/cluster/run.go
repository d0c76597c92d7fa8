//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/moat-dev/moat/hack/cluster/kube"
	"github.com/moat-dev/moat/hack/cluster/machine"
)

func kubectlCommand(args []string) error {
	return runClient("kubectl", args)
}

func helmCommand(args []string) error {
	return runClient("helm", args)
}

func kubeconfigCommand(args []string) error {
	if err := parseNoArguments(newFlags("kubeconfig"), args); err != nil {
		return err
	}
	if _, err := machine.RequireCluster(); err != nil {
		return err
	}
	fmt.Println(kube.AdminKubeconfig)
	return nil
}

// runClient becomes kubectl or helm, in the control plane's network.
func runClient(name string, args []string) error {
	r, err := machine.RequireCluster()
	if err != nil {
		return err
	}
	path, ok := r.Binaries[name]
	if !ok {
		return fmt.Errorf("the cluster has no %s: run %s down, then up", name, machine.ProgramCommand)
	}
	if err := machine.ControlPlane().EnterNetns(); err != nil {
		return err
	}
	return become(path, append([]string{name}, args...), kube.ClientEnv(os.Environ()))
}

// become replaces this program; it returns only if that fails.
func become(path string, args, env []string) error {
	return fmt.Errorf("running %s: %w", path, syscall.Exec(path, args, env))
}

func execCommand(args []string) error {
	if len(args) < 2 || (args[1] == "--" && len(args) < 3) {
		return usagef("exec: want NODE|%s|%s -- COMMAND...", machine.WorldName, machine.ControlPlaneName)
	}
	command := args[1:]
	if command[0] == "--" {
		command = command[1:]
	}
	r, err := machine.RequireCluster()
	if err != nil {
		return err
	}
	m, err := machineNamed(r, args[0])
	if err != nil {
		return err
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return fmt.Errorf("finding the command: %w", err)
	}
	if m.Name == machine.WorldName {
		if err := m.EnterNetns(); err != nil {
			return err
		}
		return become(path, command, os.Environ())
	}
	state, err := m.RunForeground(path, command)
	if err == nil && !state.Success() {
		err = userCommandError{state}
	}
	return err
}

// machineNamed finds one of the cluster's machines by its name.
func machineNamed(r *machine.Record, name string) (machine.Machine, error) {
	for _, m := range r.Machines() {
		if m.Name == name {
			return m, nil
		}
	}
	return machine.Machine{}, usagef("exec: no machine %q: choose %s, %s or node-1 to node-%d", name, machine.WorldName, machine.ControlPlaneName, r.Options.Nodes)
}

// userCommandError is the failure of a command that was run for the user: this
// program then ends with the command's own exit code.
type userCommandError struct{ state *os.ProcessState }

func (e userCommandError) Error() string { return e.state.String() }

// code is what a shell would say.
func (e userCommandError) code() int {
	if status, ok := e.state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return e.state.ExitCode()
}
