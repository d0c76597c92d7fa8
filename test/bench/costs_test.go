package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/test/bench/results"
)

// Names of the agent's metrics.
const (
	restoresMetric  = "moat_iptables_restores_total"
	requestsMetric  = "moat_ipset_requests_total"
	toKernelMetric  = "moat_event_to_kernel_duration_seconds"
	firstSyncMetric = "moat_first_sync_duration_seconds"
)

// rates are per second.
type rates struct{ cpu, restores, requests float64 }

// measureStart starts the agent, on a node without rules and then once more.
func (s *scene) measureStart(t testing.TB) []results.Figure {
	t.Helper()
	var ready time.Duration
	during("starting the agent", nil, func() { ready = s.startAgent(t) })
	empty := s.node.Metrics(t)[firstSyncMetric]
	during("starting the agent once more", nil, func() {
		s.node.Agent.Stop(t)
		s.startAgent(t)
	})
	metrics := s.node.Metrics(t)
	return []results.Figure{
		results.Number(results.FirstSync, 1000*empty),
		results.Number(results.RestartSync, 1000*metrics[firstSyncMetric]),
		results.Milliseconds(results.StartToReady, []time.Duration{ready}),
		results.Number(results.Rules, metrics.Sum("moat_iptables_rules")),
		results.Number(results.Sets, metrics.Sum("moat_ipset_sets")),
		results.Number(results.Members, metrics.Sum("moat_ipset_members")),
	}
}

// settleAfterStart is how long an agent is left alone before its memory counts: Go
// gives back what the start needed by and by.
const settleAfterStart = 15 * time.Second

// measureIdle leaves the agent alone and looks at what it takes.
func (s *scene) measureIdle(t testing.TB) []results.Figure {
	t.Helper()
	during("leaving the agent alone after its start", nil, func() { time.Sleep(settleAfterStart) })
	memory := s.memory(t, "VmRSS")
	during(fmt.Sprintf("leaving it alone for %s more", s.options.idle), nil, func() {
		s.background = s.rates(t, func() { time.Sleep(s.options.idle) })
	})
	return []results.Figure{
		results.Number(results.MemoryStart, memory),
		results.Number(results.CPUIdle, 100*s.background.cpu),
	}
}

// measureChurn changes pods all over the cluster.
func (s *scene) measureChurn(t testing.TB) []results.Figure {
	t.Helper()
	changed := 0
	var seconds float64
	var now rates
	during(fmt.Sprintf("changing %d pods per second for %s", churnPerSecond, s.options.churn), nil, func() {
		now = s.rates(t, func() {
			start := time.Now()
			changed = s.churn(t, s.options.churn)
			seconds = time.Since(start).Seconds()
		})
	})
	perSecond := float64(changed) / seconds
	perChange := func(busy, idle float64) float64 { return max(0, busy-idle) / perSecond }
	return []results.Figure{
		results.Number(results.MemoryChurn, s.memory(t, "VmRSS")),
		results.Number(results.MemoryPeak, s.memory(t, "VmHWM")),
		results.Number(results.CPUChurn, 100*now.cpu),
		results.Number(results.Churn, perSecond),
		results.Number(results.ChurnRestores, perChange(now.restores, s.background.restores)),
		results.Number(results.ChurnRequests, perChange(now.requests, s.background.requests)),
	}
}

// rates returns what the agent took per second while something was done.
func (s *scene) rates(t testing.TB, do func()) rates {
	t.Helper()
	pid := s.node.Agent.Pid()
	before, cpu, start := s.node.Metrics(t), cpuTime(t, pid), time.Now()
	do()
	seconds := time.Since(start).Seconds()
	spent := cpuTime(t, pid) - cpu
	after := s.node.Metrics(t)
	return rates{
		cpu:      spent.Seconds() / seconds,
		restores: (after.Sum(restoresMetric) - before.Sum(restoresMetric)) / seconds,
		requests: (after.Sum(requestsMetric) - before.Sum(requestsMetric)) / seconds,
	}
}

// clockTick is the unit of the times in /proc, the same on all of Linux' present
// architectures (USER_HZ).
const clockTick = 10 * time.Millisecond

// cpuTime returns what a process and the children that it has waited for, such as
// iptables-restore, took of the CPU.
func cpuTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	// The second field, the program's name in parentheses, may hold blanks.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const userTime = 11 // proc(5): field 14, and three more from there
	var ticks time.Duration
	for _, field := range fields[userTime : userTime+4] {
		n, err := strconv.ParseInt(field, 10, 64)
		require.NoError(t, err)
		ticks += time.Duration(n)
	}
	return ticks * clockTick
}

// memory returns a line of the agent's /proc/PID/status, in MB.
func (s *scene) memory(t testing.TB, line string) float64 {
	t.Helper()
	return processMemory(t, s.node.Agent.Pid(), line)
}

// processMemory returns a line of /proc/PID/status, in MB.
func processMemory(t testing.TB, pid int, line string) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	for l := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(l, line+":"); ok {
			kilobytes, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			require.NoError(t, err)
			return kilobytes / 1024
		}
	}
	require.FailNow(t, "no line "+line)
	return 0
}
