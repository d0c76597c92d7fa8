package conformance

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/mattfenwick/cyclonus/pkg/connectivity"
	"github.com/mattfenwick/cyclonus/pkg/connectivity/probe"
	"github.com/mattfenwick/cyclonus/pkg/generator"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/ruleset"
	"github.com/moat-dev/moat/test/cluster"
	"github.com/moat-dev/moat/test/junit"
)

// Variables of the environment.
const (
	junitVariable = "MOAT_JUNIT" // the file to write; without it, none
	quickVariable = "QUICK"      // 1: a sample of the cases
)

const (
	// progressEvery is how often a run says how far it is.
	progressEvery = 10 * time.Second

	// controlCases is how many cases the negative control runs.
	controlCases = 3

	// shownFailures is how many failed cases are printed in full; the JUnit file
	// has them all.
	shownFailures = 5
)

// combination is one cluster's part of the run: all cases with one backend, over
// one family.
type combination struct {
	backend iptables.Backend
	family  ruleset.Family

	suite junit.Suite

	mu    sync.Mutex // guards what follows: progress is printed meanwhile
	stage string
	cases int
	done  int
	steps int
	total tally
}

func (c *combination) String() string { return fmt.Sprintf("%s/%s", c.backend, c.family) }

func combinations() []*combination {
	var all []*combination
	for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
		for _, family := range ruleset.Families() {
			c := &combination{backend: backend, family: family, stage: "starting the cluster"}
			c.suite.Name = c.String()
			all = append(all, c)
		}
	}
	return all
}

// summary is printed as the last line, after go test's own.
var summary string

func TestMain(m *testing.M) {
	logrus.SetLevel(logrus.ErrorLevel)
	log.SetLogger(logr.Discard())
	code := m.Run()
	if summary != "" {
		fmt.Println(summary)
	}
	os.Exit(code)
}

func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes, which -short leaves out")
	}
	generate("192.0.2.1") // Sets what the generator shares, before others read it.
	all := combinations()
	stop := make(chan struct{})
	go progress(all, stop)
	t.Run("cyclonus", func(t *testing.T) {
		for _, c := range all {
			t.Run(c.String(), func(t *testing.T) {
				t.Parallel()
				c.run(t)
			})
		}
	})
	close(stop)
	report(t, all)
}

// report writes the JUnit file and sums up.
func report(t *testing.T, all []*combination) {
	var cases, steps int
	var total tally
	var suites []junit.Suite
	for _, c := range all {
		cases, steps = cases+c.done, steps+c.steps
		total.add(c.total)
		suites = append(suites, c.suite)
	}
	if path := os.Getenv(junitVariable); path != "" {
		require.NoError(t, junit.Write(path, suites))
		fmt.Println("JUnit file:", path)
	}
	fmt.Printf("%d steps; %d probes had to be blocked; at a later try only, %d were answered and %d blocked\n",
		steps, total.blocked, total.late, total.slow)
	summary = fmt.Sprintf("%d cases, %d probes, %d mismatches", cases, total.probes, total.mismatches)
}

func progress(all []*combination, stop <-chan struct{}) {
	start := time.Now()
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		var parts []string
		for _, c := range all {
			parts = append(parts, c.progress())
		}
		fmt.Printf("%4.0fs  %s\n", time.Since(start).Seconds(), strings.Join(parts, "  "))
	}
}

func (c *combination) progress() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := fmt.Sprintf("%s: %s", c, c.stage)
	if c.done > 0 && c.done < c.cases {
		text = fmt.Sprintf("%s: %d/%d", c, c.done, c.cases)
	}
	if c.total.mismatches > 0 {
		text += fmt.Sprintf(" (%d mismatches)", c.total.mismatches)
	}
	return text
}

func (c *combination) setStage(stage string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stage = stage
}

// run proves that an open matrix is open, runs the cases, and proves that
// without agents the same cases fail.
func (c *combination) run(t *testing.T) {
	start := time.Now()
	defer func() { c.suite.Time = junit.Seconds(time.Since(start)) }()
	kubernetes := newKubernetes(t, cluster.New(t, cluster.Options{Nodes: 3, Primary: c.family}))
	resources, err := probe.NewDefaultResources(kubernetes, namespaces, []string{"a", "b", "c"}, []int{80, 81},
		[]corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}, nil, 60, false, "none")
	require.NoError(t, err)
	for _, pod := range resources.Pods {
		require.Equal(t, c.family == ruleset.IPv4, strings.Contains(pod.IP, "."), "%s is of the wrong family", pod.IP)
	}
	kubernetes.cluster.StartAgents(t, c.backend)
	r := &runner{kubernetes: kubernetes, resources: resources, timeouts: timeouts}

	c.setStage("open matrix")
	c.requireOpen(t, r)
	last, err := resources.GetPod("z", "c")
	require.NoError(t, err)
	cases := generate(last.IP)
	if os.Getenv(quickVariable) == "1" {
		cases = sample(cases)
	}
	c.runCases(t, r, cases)
	c.setStage("negative control")
	c.control(t, r, cases)
	c.setStage("done")
}

// requireOpen requires that without policies every probe is answered, a pod's to
// itself too. Otherwise a broken network would look like enforcement.
func (c *combination) requireOpen(t *testing.T, r *runner) {
	start := time.Now()
	state := &connectivity.TestCaseState{Kubernetes: r.kubernetes, Resources: r.resources}
	require.NoError(t, state.VerifyClusterState())
	config := generator.NewAllAvailable(generator.ProbeModePodIP)
	results := r.send((&probe.JobBuilder{}).GetJobsForProbeConfig(r.resources, config).Valid, slices.Max(patience))
	require.Len(t, results, 9*9*2*3)
	for _, result := range results {
		require.Equal(t, probe.ConnectivityAllowed, result.Combined, "%s -> %s %s without any policy",
			result.Job.FromKey, result.Job.ToKey, result.Key())
	}
	c.suite.Add("open matrix", time.Since(start), "", "")
}

func (c *combination) runCases(t *testing.T, r *runner, cases []*generator.TestCase) {
	c.mu.Lock()
	c.cases = len(cases)
	c.mu.Unlock()
	failed := 0
	for _, testCase := range cases {
		start := time.Now()
		name := testCase.Description
		result, difference, err := r.run(testCase)
		if err != nil {
			c.suite.Add(name, time.Since(start), "error", err.Error())
			require.NoError(t, err, name)
		}
		message := ""
		if result.mismatches > 0 {
			message = fmt.Sprintf("%d of %d probes", result.mismatches, result.probes)
			if failed++; failed <= shownFailures {
				t.Errorf("%s: %s\n%s", name, message, difference)
			}
		}
		if result.late+result.slow > 0 {
			fmt.Printf("       %s: %s: at a later try only, %d were answered and %d blocked\n", c, name, result.late, result.slow)
		}
		c.suite.Add(name, time.Since(start), message, difference)
		c.mu.Lock()
		c.done++
		c.steps += len(testCase.Steps)
		c.total.add(result)
		c.mu.Unlock()
	}
	if failed > shownFailures {
		t.Errorf("%d cases failed; the JUnit file has them all", failed)
	}
}

// control takes the agents and their rules away: then every probe that has to be
// blocked must pass, or it isn't Moat that the cases have seen.
func (c *combination) control(t *testing.T, r *runner, cases []*generator.TestCase) {
	start := time.Now()
	nodes := r.kubernetes.(*kubernetes).cluster
	nodes.StopAgents(t)
	for _, node := range nodes.Nodes {
		node.RemoveRules(t)
	}
	r.timeouts = patience
	red := 0
	for _, testCase := range cases {
		result, _, err := r.run(testCase)
		require.NoError(t, err, testCase.Description)
		require.Equal(t, result.blocked, result.mismatches, "negative control: %s isn't enforced by anything", testCase.Description)
		if result.mismatches > 0 {
			red++
		}
		if red == controlCases {
			c.suite.Add("negative control", time.Since(start), "", "")
			return
		}
	}
	require.FailNow(t, "negative control: no case has anything to block")
}
