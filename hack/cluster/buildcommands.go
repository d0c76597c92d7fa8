//go:build linux

package main

import (
	"errors"
	"fmt"
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
	paths, err := buildBinaries(flags.Args())
	var unknown unknownNameError
	if errors.As(err, &unknown) {
		return usagef("%v", unknown)
	}
	if err != nil {
		return err
	}
	if !*assets {
		say("every binary asked for is there")
		return nil
	}
	dir, err := assetsFolder(paths)
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
	files, err := buildImages()
	for _, file := range files {
		fmt.Println(file)
	}
	return err
}
