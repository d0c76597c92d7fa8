//go:build linux

package main

import (
	"os"

	"github.com/moat-dev/moat/hack/cluster/build"
	"github.com/moat-dev/moat/hack/cluster/kube"
	"github.com/moat-dev/moat/hack/cluster/machine"
)

func loadImageCommand(args []string) error {
	flags := newFlags("load-image")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return usagef("load-image: name one or more docker-archive files")
	}
	for _, file := range flags.Args() {
		if info, err := os.Stat(file); err != nil || info.IsDir() {
			return usagef("load-image: %s is no file", file)
		}
	}
	r, err := machine.RequireCluster()
	if err != nil {
		return err
	}
	checkout, err := build.FindCheckout()
	if err != nil {
		return err
	}
	if err := r.CheckOwner(checkout); err != nil {
		return err
	}
	for _, file := range flags.Args() {
		if err := kube.LoadImage(r, file); err != nil {
			return err
		}
	}
	return nil
}
