package bench

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/test/bench/results"
)

// The hostile scenario: one namespace of the small cluster writes and rewrites expensive
// policies, while changes of others are sampled as in all scenarios. The same samples are
// taken before, when the namespace has pods and no policy.

const (
	// The agent has what the chart gives it: memory, which it is told in this variable, and
	// budgets that are enforced.
	memoryVariable = "MEMORY_LIMIT"
	chartMemory    = 512 << 20
	budgetFlag     = "--budget-mode=Enforce"

	// lookAtMemory is how often the bench looks at what the agent and its programs take.
	lookAtMemory = 200 * time.Millisecond
)

// measureHostile adds both scenarios to the report.
func (o *options) measureHostile(t *testing.T, s size, report *results.Report) {
	t.Helper()
	t.Setenv(memoryVariable, fmt.Sprint(chartMemory))
	with := *o
	with.flags = append([]string{budgetFlag}, o.flags...)
	say("scenario %s: %d policies of one namespace, and %d of others", results.Hostile, o.hostile, s.namespaces*s.policies)
	sc := newScene(t, &with, s)
	pods := sc.addHostilePods(t)
	during("starting the agent", nil, func() { sc.startAgent(t) })

	scenario := results.Scenario{Name: results.Quiet, Namespaces: s.namespaces, Pods: s.pods, Policies: s.policies, Local: s.local, Backend: string(o.backend)}
	quiet := sc.measurePackets(t, pods[1])
	scenario.Figures = append(sc.measureChanges(t, func() bool { return true }), quiet.figures()...)
	scenario.Figures = append(scenario.Figures, results.Number(results.MemoryPeak, sc.memory(t, "VmHWM")))
	report.Scenarios = append(report.Scenarios, scenario)

	scenario.Name, scenario.Figures = results.Hostile, nil
	var w *tenant
	during("making hostile policies", nil, func() { w = newTenant(sc.api, o.hostile, s.namespaces*s.pods) })
	peak := watchMemory(t, sc.node.Agent.Pid())
	stop := w.run(t)
	scenario.Figures = sc.measureChanges(t, w.done)
	scenario.Figures = append(scenario.Figures, results.Number(results.HostileRate, stop()), results.Number(results.HostileWrites, float64(w.written.Load())))
	// What was measured is kept, whatever comes after it.
	report.Scenarios = append(report.Scenarios, scenario)
	packets, metrics := sc.measurePackets(t, pods[1]), sc.node.Metrics(t)
	sc.layLongestChain(t, w)
	packets.own = sc.measurePackets(t, pods[1]).own
	last := &report.Scenarios[len(report.Scenarios)-1]
	last.Figures = slices.Concat(last.Figures, packets.figures(), packets.more(quiet), []results.Figure{
		results.Number(results.Rules, metrics.Sum("moat_iptables_rules")),
		results.Number(results.Sets, metrics.Sum("moat_ipset_sets")),
		results.Number(results.MemoryPeak, sc.memory(t, "VmHWM")),
		results.Number(results.ProgramsPeak, peak()),
	})
}

// addHostilePods makes the pods of the hostile namespace on the node.
func (s *scene) addHostilePods(t testing.TB) []*nodetest.Host {
	t.Helper()
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: hostileNamespace}}
	_, err := s.api.CoreV1().Namespaces().Create(t.Context(), object, metav1.CreateOptions{})
	require.NoError(t, err)
	var hosts []*nodetest.Host
	for i := range hostilePods {
		host := s.node.AddPod(t, localAddr(firstNew+i).String())
		pod := newPod(hostileNamespace, fmt.Sprint("pod-", i), hostileLabels(i))
		place(pod, localNode, host.Addrs[0])
		require.NoError(t, runPod(t.Context(), s.api, pod))
		hosts = append(hosts, host)
	}
	return hosts
}

// measureChanges samples changes of labels and then of policies until there are as many as
// wanted and the condition holds.
func (s *scene) measureChanges(t testing.TB, enough func() bool) []results.Figure {
	t.Helper()
	var figures []results.Figure
	var all []time.Duration
	kinds := []struct {
		name    string
		changes func(*scene, testing.TB) *pair
		enough  func() bool
	}{{"labels", (*scene).labels, func() bool { return true }}, {"policies", (*scene).policies, enough}}
	for _, kind := range kinds {
		p := kind.changes(s, t)
		detail := func() string { return fmt.Sprintf("%d of %d samples", len(p.opened), s.options.samples) }
		during("changing "+kind.name, detail, func() {
			for len(p.opened) < s.options.samples || !kind.enough() {
				p.sample(t, min(inTurn, max(1, s.options.samples-len(p.opened))))
			}
		})
		p.packets.stop()
		all = append(append(all, p.opened...), p.closed...)
		figures = append(figures, results.Milliseconds(p.opens, p.opened), results.Milliseconds(p.closes, p.closed), results.Milliseconds(p.write, p.written))
	}
	return append(figures, results.Milliseconds(results.ChangeInForce, all), results.Number(results.MemoryStalls, 100*results.Quantile(s.stalls, 0.5)))
}

// chainWithin is long enough for a policy that waits since its namespace wrote much before.
const chainWithin = 3 * time.Minute

// layLongestChain gives one hostile pod the most rules that a packet may be compared with
// which look up a set each, and waits until they are in force. The namespace's other policies
// go, or this one would wait behind all of them.
func (s *scene) layLongestChain(t testing.TB, w *tenant) {
	t.Helper()
	np := tenantPolicy("largest-1", 1, &w.largest[0])
	during("laying the longest chain", nil, func() {
		policies := s.api.NetworkingV1().NetworkPolicies(np.Namespace)
		require.NoError(t, policies.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}))
		clear(w.created)
		require.NoError(t, w.write(t.Context(), np))
		stored := &networkingv1.NetworkPolicy{}
		require.NoError(t, s.cluster.Client.Get(t.Context(), types.NamespacedName{Namespace: np.Namespace, Name: np.Name}, stored))
		want := v1alpha1.EnforcedPolicy{UID: stored.UID, Generation: stored.Generation}
		require.Eventually(t, func() bool {
			report := &v1alpha1.NodeEnforcement{}
			err := s.cluster.Client.Get(t.Context(), types.NamespacedName{Name: localNode}, report)
			return err == nil && slices.Contains(report.Status.Policies, want)
		}, chainWithin, time.Second, "%s doesn't report policy %s", localNode, np.Name)
	})
}

// packetTimes are how long a packet takes, in each burst.
type packetTimes struct{ fresh, known, own []time.Duration }

// measurePackets sends packets from a pod that policies let in, and to a pod of the hostile
// namespace.
func (s *scene) measurePackets(t testing.TB, hostile *nodetest.Host) packetTimes {
	t.Helper()
	var times packetTimes
	during("sending packets", nil, func() {
		innocent := &packets{from: s.member, to: s.target, port: firstPort}
		times.fresh, times.known = innocent.newConnections(t), innocent.established(t)
		times.own = (&packets{from: s.member, to: hostile, port: firstPort}).newConnections(t)
	})
	return times
}

func (p packetTimes) figures() []results.Figure {
	return []results.Figure{
		results.Microseconds(results.NewPacket, p.fresh), results.Microseconds(results.KnownPacket, p.known), results.Microseconds(results.OwnPacket, p.own),
	}
}

// more compares the lower quartiles.
func (p packetTimes) more(than packetTimes) []results.Figure {
	more := func(kind string, with, without []time.Duration) results.Figure {
		return results.Number(kind, (quartile(with)-quartile(without))*float64(time.Second/time.Microsecond))
	}
	return []results.Figure{
		more(results.NewPacketMore, p.fresh, than.fresh), more(results.KnownPacketMore, p.known, than.known), more(results.OwnPacketMore, p.own, than.own),
	}
}

// quartile returns the lower quartile in seconds.
func quartile(times []time.Duration) float64 {
	seconds := make([]float64, len(times))
	for i := range times {
		seconds[i] = times[i].Seconds()
	}
	return results.Quantile(seconds, 0.25)
}

// watchMemory looks at the memory of a process and the programs that it runs until the
// returned function is called, which returns the most that there was, in MB.
func watchMemory(t testing.TB, pid int) (peak func() float64) {
	t.Helper()
	done, most := make(chan struct{}), make(chan float64, 1)
	go func() {
		peak := 0.0
		ticker := time.NewTicker(lookAtMemory)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				most <- peak
				return
			case <-ticker.C:
				peak = max(peak, residentMemory(pid))
			}
		}
	}()
	return func() float64 {
		close(done)
		return <-most
	}
}

// residentMemory is that of a process and its children, in MB. Those that end meanwhile
// count nothing.
func residentMemory(pid int) float64 {
	pages := 0
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		text, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue
		}
		// proc(5): the second field, the program's name in parentheses, may hold blanks.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		const parent, resident = 1, 21
		if entry.Name() == strconv.Itoa(pid) || fields[parent] == strconv.Itoa(pid) && runsAnother(entry.Name(), pid) {
			n, _ := strconv.Atoi(fields[resident])
			pages += n
		}
	}
	return float64(pages*os.Getpagesize()) / (1 << 20)
}

// runsAnother reports whether a child runs another program than its parent. Until execve
// the two share their memory, which mustn't count twice.
func runsAnother(child string, parent int) bool {
	own, err := os.Readlink("/proc/" + child + "/exe")
	parents, parentErr := os.Readlink(fmt.Sprintf("/proc/%d/exe", parent))
	return err == nil && parentErr == nil && own != parents
}

// The scenario runs from end to end with few policies and samples, and says all that it is
// to say. How long anything took is for the benchmark itself.
func TestTheHostileScenarioRuns(t *testing.T) {
	o, report := &options{backend: iptables.NFT, samples: 1, hostile: 4}, &results.Report{}
	o.measureHostile(t, size{namespaces: 2, pods: 10, policies: 3, local: 4}, report)
	require.Len(t, report.Scenarios, 2)
	for _, kind := range []string{results.ChangeInForce, results.MemoryPeak, results.NewPacket, results.KnownPacket, results.OwnPacket} {
		for i := range report.Scenarios {
			figure, ok := report.Scenarios[i].Figure(kind)
			require.True(t, ok, "%s %s", report.Scenarios[i].Name, kind)
			require.Positive(t, figure.Value, "%s %s", report.Scenarios[i].Name, kind)
		}
	}
	hostile := &report.Scenarios[1]
	for kind, least := range map[string]float64{
		results.HostileWrites: 4,
		// The longest chain is in the kernel: a rule and a set for each of its peers.
		results.Rules: 1000, results.Sets: 1000, results.OwnPacketMore: 1,
	} {
		figure, _ := hostile.Figure(kind)
		require.GreaterOrEqual(t, figure.Value, least, kind)
	}
	_, ok := hostile.Figure(results.NewPacketMore)
	require.True(t, ok)
}

// A program that a process runs counts for it.
func TestMemoryOfProgramsCounts(t *testing.T) {
	alone := residentMemory(os.Getpid())
	require.InDelta(t, processMemory(t, os.Getpid(), "VmRSS"), alone, 5)
	program := exec.Command("sleep", "60")
	require.NoError(t, program.Start())
	defer func() { _ = program.Process.Kill(); _ = program.Wait() }()
	require.Eventually(t, func() bool {
		own := processMemory(t, program.Process.Pid, "VmRSS")
		both := processMemory(t, os.Getpid(), "VmRSS") + own
		return own > 0.5 && math.Abs(residentMemory(os.Getpid())-both) < own/2
	}, changeWithin, look)
}
