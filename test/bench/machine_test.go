package bench

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/test/bench/results"
)

func thisMachine(t testing.TB) results.Machine {
	t.Helper()
	var info unix.Sysinfo_t
	require.NoError(t, unix.Sysinfo(&info))
	var name unix.Utsname
	require.NoError(t, unix.Uname(&name))
	load, err := os.ReadFile("/proc/loadavg")
	require.NoError(t, err)
	first, err := strconv.ParseFloat(strings.Fields(string(load))[0], 64)
	require.NoError(t, err)
	return results.Machine{
		CPU: cpuName(t), Cores: runtime.NumCPU(), Memory: int(info.Totalram * uint64(info.Unit) >> 20),
		Kernel: unix.ByteSliceToString(name.Release[:]), Load: first,
	}
}

func cpuName(t testing.TB) string {
	t.Helper()
	file, err := os.Open("/proc/cpuinfo")
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if key, value, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// Some hosts of virtual machines take pages of memory away, to see which are in use: to
// touch such a page takes a hundred microseconds, and all that a program does gets
// slower by the hour, with nothing in the machine that shows it.

const (
	stallMemory = 16 << 20
	stallTime   = 100 * time.Millisecond
	// stallLeast is far more than memory takes by itself, in caches or not.
	stallLeast = 20 * time.Microsecond
)

// memoryStalls returns which share of a tenth of a second of touching pages goes by in
// waits for one of them. Other programs that run meanwhile are part of it.
func memoryStalls(t testing.TB) float64 {
	t.Helper()
	memory, err := unix.Mmap(-1, 0, stallMemory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	require.NoError(t, err)
	defer func() { _ = unix.Munmap(memory) }()
	// Programs don't have large pages as a rule, which the host takes away less often.
	_ = unix.Madvise(memory, unix.MADV_NOHUGEPAGE)
	page := os.Getpagesize()
	touch := func() (stalled time.Duration) {
		for at, last := 0, since(); at < len(memory); at += page {
			memory[at]++
			now := since()
			if now-last > stallLeast {
				stalled += now - last
			}
			last = now
		}
		return stalled
	}
	touch() // the kernel gives each page when it is touched first
	var stalled time.Duration
	start := since()
	for since()-start < stallTime {
		stalled += touch()
	}
	return float64(stalled) / float64(since()-start)
}
