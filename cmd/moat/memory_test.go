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
	}{
		"nine tenths":       {strconv.Itoa(512 << 20), "", 483183820},
		"no limit":          {"", "", math.MaxInt64},
		"GOMEMLIMIT is set": {strconv.Itoa(512 << 20), "400MiB", math.MaxInt64},
		"as good as none":   {strconv.FormatInt(math.MaxInt64, 10), "", math.MaxInt64 / 100},
	} {
		t.Run(name, func(t *testing.T) {
			debug.SetMemoryLimit(math.MaxInt64)
			t.Setenv(memoryLimitVariable, test.container)
			t.Setenv("GOMEMLIMIT", test.own)
			require.NoError(t, limitMemory())
			require.InEpsilon(t, test.want, debug.SetMemoryLimit(-1), 1e-6)
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
