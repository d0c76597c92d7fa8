//go:build !linux

package main

import (
	"fmt"
	"os"
	"runtime"
)

func main() {
	fmt.Fprintf(os.Stderr, "cluster: the cluster's nodes are Linux network namespaces, and %s has none: use a Linux machine or VM\n", runtime.GOOS)
	os.Exit(1)
}
