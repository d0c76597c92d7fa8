package main

import (
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"strconv"
)

const (
	// memoryLimitVariable has the memory limit of the container, in bytes. The manifests
	// fill it from limits.memory by Kubernetes' downward API, which knows the limit that the
	// container really has, also where something else than the manifest sets it.
	memoryLimitVariable = "MEMORY_LIMIT"

	// goMemoryPercent is how much of the limit Go may use. The rest is for what Go
	// doesn't count: the kernel's buffers of the container, and the programs that an agent
	// runs, such as iptables-restore. GOMEMLIMIT filled by the downward API itself would be the
	// whole limit, and the kernel would end the process before Go collects.
	goMemoryPercent = 90

	// policyShare is the part of Go's memory that the policies of one namespace may take:
	// one in so many. What they take doubles while changes of them wait.
	policyShare = 4
)

// policyMemory is how many bytes the policies of one namespace may take of an agent; zero
// where its memory has no limit.
func policyMemory() int {
	limit := debug.SetMemoryLimit(-1) // only asks
	if limit == math.MaxInt64 {
		return 0
	}
	return int(limit / policyShare)
}

// limitMemory makes Go collect garbage rather than pass the container's memory limit. Without
// MEMORY_LIMIT there is no limit, and GOMEMLIMIT, which Go reads itself, goes before it.
func limitMemory() error {
	text := os.Getenv(memoryLimitVariable)
	if text == "" || os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	limit, err := strconv.ParseInt(text, 10, 64)
	if err != nil || limit <= 0 {
		return fmt.Errorf("%s %q: want a number of bytes above 0", memoryLimitVariable, text)
	}
	// In this order, so that no limit overflows.
	debug.SetMemoryLimit(min(limit, math.MaxInt64/goMemoryPercent) * goMemoryPercent / 100)
	return nil
}
