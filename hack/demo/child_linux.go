package main

import (
	"os/exec"
	"syscall"
)

// endWithParent lets the kernel end the command when this program ends, however it ends.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
