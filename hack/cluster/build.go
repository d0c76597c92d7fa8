//go:build linux

package main

import (
	"errors"
	"fmt"

	"github.com/moat-dev/moat/hack/cluster/build"
	"github.com/moat-dev/moat/hack/cluster/progress"
)

func buildCommand(args []string) error {
	flags := newFlags("build")
	assets := flags.Bool("assets", false, "print one folder that holds the binaries named")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	if *assets && flags.NArg() == 0 {
		return usagef("build --assets: name the binaries that the folder shall hold")
	}
	paths, err := build.Binaries(flags.Args())
	var unknown build.UnknownNameError
	if errors.As(err, &unknown) {
		return usagef("%v", unknown)
	}
	if err != nil {
		return err
	}
	if !*assets {
		progress.Say("every binary asked for is there")
		return nil
	}
	dir, err := build.AssetsFolder(paths)
	if err == nil {
		fmt.Println(dir)
	}
	return err
}

func imagesCommand(args []string) error {
	flags := newFlags("images")
	if err := parseNoArguments(flags, args); err != nil {
		return err
	}
	files, err := build.Images()
	for _, file := range files {
		fmt.Println(file)
	}
	return err
}
