//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/moat-dev/moat/hack/cluster/machine"
)

// newFlags makes the flags of a command. What is wrong with them is said once,
// by main.
func newFlags(command string) *flag.FlagSet {
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	return flags
}

func parseFlags(flags *flag.FlagSet, args []string) error {
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Print(usage)
		os.Exit(0)
	}
	if err != nil {
		return usagef("%s: %v; see %s help", flags.Name(), err, machine.ProgramCommand)
	}
	return nil
}

// parseNoArguments is parseFlags for a command that takes nothing else.
func parseNoArguments(flags *flag.FlagSet, args []string) error {
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return usagef("%s: unexpected argument %q; see %s help", flags.Name(), flags.Arg(0), machine.ProgramCommand)
	}
	return nil
}
