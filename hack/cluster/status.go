//go:build linux

package main

import (
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/moat-dev/moat/hack/cluster/kube"
	"github.com/moat-dev/moat/hack/cluster/machine"
)

func statusCommand(args []string) error {
	flags := newFlags("status")
	if err := parseNoArguments(flags, args); err != nil {
		return err
	}
	if err := machine.RequireRoot(); err != nil {
		return err
	}
	r, err := machine.ReadRecord()
	if err != nil {
		return err
	}
	if r == nil {
		fmt.Println("No cluster on this machine.")
		return nil
	}
	printRecord(r)
	if err := printProcesses(r); err != nil {
		return err
	}
	list, err := kube.Kubectl(r, "", "get", "nodes", "-o", "wide", "--request-timeout=5s")
	if err != nil {
		return fmt.Errorf("the API server doesn't answer: see %s", machine.ControlPlane().LogFile("kube-apiserver"))
	}
	fmt.Printf("\n%s", list)
	return nil
}

func printRecord(r *machine.Record) {
	state := "up"
	switch {
	case r.BootID != machine.BootID():
		state = "gone with the machine's restart"
	case !r.Complete:
		state = "starting, or left by an interrupted up"
	}
	fmt.Printf("State:     %s, since %s\n", state, r.Since.Format(time.RFC3339))
	fmt.Printf("Options:   %s\n", r.Options)
	if r.Network != r.Options.Network {
		fmt.Printf("Network:   %s, since flanneld could not be had\n", r.Network)
	}
	fmt.Printf("Checkout:  %s\n\n", r.Checkout)
}

func printProcesses(r *machine.Record) error {
	processes, err := machine.RecordedProcesses()
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "MACHINE\tPROCESS\tPID\tSTATE\tLOG")
	for _, p := range processes {
		state, log := "dead", p.LogFile()
		if p.Alive() && r.BootID == machine.BootID() {
			state = "running"
		}
		if p.Name == machine.InitCommand {
			log = ""
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\n", p.Machine, p.Name, p.PID, state, log)
	}
	return table.Flush()
}
