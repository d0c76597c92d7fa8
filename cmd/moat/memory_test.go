package main

import (
	"math"
	"runtime/debug"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGoStaysBelowTheContainersLimit(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	for name, test := range map[string]struct {
		container, own string
		want           int64
		policies       int // of one namespace
	}{
		"nine tenths":       {strconv.Itoa(512 << 20), "", 483183820, 120795955},
		"no limit":          {"", "", math.MaxInt64, 0},
		"GOMEMLIMIT is set": {strconv.Itoa(512 << 20), "400MiB", math.MaxInt64, 0},
		"as good as none":   {strconv.FormatInt(math.MaxInt64, 10), "", math.MaxInt64 / 100, math.MaxInt64 / 400},
	} {
		t.Run(name, func(t *testing.T) {
			debug.SetMemoryLimit(math.MaxInt64)
			t.Setenv(memoryLimitVariable, test.container)
			t.Setenv("GOMEMLIMIT", test.own)
			require.NoError(t, limitMemory())
			require.InEpsilon(t, test.want, debug.SetMemoryLimit(-1), 1e-6)
			require.InDelta(t, test.policies, policyMemory(), 1e-6*float64(test.policies))
		})
	}
}

func TestAWrongMemoryLimitIsRefused(t *testing.T) {
	noAPIServer(t)
	t.Setenv("GOMEMLIMIT", "")
	for _, text := range []string{"512Mi", "0", "-1"} {
		t.Setenv(memoryLimitVariable, text)
		for _, args := range [][]string{{"agent", "--node-name=a"}, {"operator", "--agent-namespace=moat-system"}} {
			code, _, stderr := runMoat(t, args...)
			require.Equal(t, exitUsage, code)
			require.Contains(t, stderr, `MEMORY_LIMIT "`+text+`": want a number of bytes above 0`)
		}
	}
}
