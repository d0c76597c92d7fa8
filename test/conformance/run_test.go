package conformance

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mattfenwick/cyclonus/pkg/connectivity"
	"github.com/mattfenwick/cyclonus/pkg/connectivity/probe"
	"github.com/mattfenwick/cyclonus/pkg/generator"
	"github.com/mattfenwick/cyclonus/pkg/kube"
	"github.com/mattfenwick/cyclonus/pkg/matcher"
	"sigs.k8s.io/yaml"
)

const (
	// inForceWithin is the promise that is tested: a change is in force within a
	// second. So each matrix is probed a second after the last change, and not
	// earlier: a probe that meets the state before the change would pass or
	// fail by chance. The nodes' reports would tell more exactly, but agents
	// write them every two to three seconds.
	inForceWithin = time.Second
)

// timeouts are, in seconds, how long a probe waits for its answer. All probes of a
// matrix run at once, so a second costs little. What differs from the expectation
// is probed again, with time for a machine that is busy with other things. Where
// every probe is to be answered, patience is right at the first try.
var (
	timeouts = []int{1, 3, 10}
	patience = []int{10}
)

// tally is what a case's probes came to. A pod's probes to itself aren't counted:
// they never leave the pod.
type tally struct {
	probes     int
	blocked    int // probes that have to be
	late       int // allowed, but not answered at the first try
	slow       int // blocked, but answered at the first try: in force too late
	mismatches int // wrong at the last try
}

func (t *tally) add(other tally) {
	t.probes += other.probes
	t.blocked += other.blocked
	t.late += other.late
	t.slow += other.slow
	t.mismatches += other.mismatches
}

// runner runs cases on a cluster.
type runner struct {
	kubernetes kube.IKubernetes
	resources  *probe.Resources
	timeouts   []int // of the tries
}

// run runs a case from its reset to its last probe. The text says how the
// matrices differ from what they should be.
func (r *runner) run(c *generator.TestCase) (total tally, difference string, err error) {
	state := &connectivity.TestCaseState{Kubernetes: r.kubernetes, Resources: r.resources}
	if err := state.ResetClusterState(); err != nil {
		return total, "", fmt.Errorf("resetting the cluster: %w", err)
	}
	if err := state.VerifyClusterState(); err != nil {
		return total, "", fmt.Errorf("verifying the cluster: %w", err)
	}
	for i, step := range c.Steps {
		for _, action := range step.Actions {
			if err := act(state, action); err != nil {
				return total, "", fmt.Errorf("step %d: %w", i+1, err)
			}
		}
		time.Sleep(inForceWithin)
		result, text := r.probe(state, step.Probe)
		total.add(result)
		if text != "" {
			difference += fmt.Sprintf("step %d of %d\n%s", i+1, len(c.Steps), text)
		}
	}
	return total, difference, nil
}

// act does what Cyclonus' interpreter does, which can't be used itself: it probes
// a matrix with 15 workers and waits for whole seconds.
func act(state *connectivity.TestCaseState, a *generator.Action) error {
	switch {
	case a.CreatePolicy != nil:
		return state.CreatePolicy(a.CreatePolicy.Policy)
	case a.UpdatePolicy != nil:
		return state.UpdatePolicy(a.UpdatePolicy.Policy)
	case a.DeletePolicy != nil:
		return state.DeletePolicy(a.DeletePolicy.Namespace, a.DeletePolicy.Name)
	case a.CreateNamespace != nil:
		return state.CreateNamespace(a.CreateNamespace.Namespace, a.CreateNamespace.Labels)
	case a.SetNamespaceLabels != nil:
		return state.SetNamespaceLabels(a.SetNamespaceLabels.Namespace, a.SetNamespaceLabels.Labels)
	case a.DeleteNamespace != nil:
		return state.DeleteNamespace(a.DeleteNamespace.Namespace)
	case a.ReadNetworkPolicies != nil:
		return state.ReadPolicies(a.ReadNetworkPolicies.Namespaces)
	case a.CreatePod != nil:
		return state.CreatePod(a.CreatePod.Namespace, a.CreatePod.Pod, a.CreatePod.Labels)
	case a.SetPodLabels != nil:
		return state.SetPodLabels(a.SetPodLabels.Namespace, a.SetPodLabels.Pod, a.SetPodLabels.Labels)
	case a.DeletePod != nil:
		return state.DeletePod(a.DeletePod.Namespace, a.DeletePod.Pod)
	}
	return fmt.Errorf("unknown action %+v", a)
}

// probe sends the probes of a step and compares their fate with Cyclonus' model.
func (r *runner) probe(state *connectivity.TestCaseState, config *generator.ProbeConfig) (t tally, difference string) {
	jobs := (&probe.JobBuilder{}).GetJobsForProbeConfig(state.Resources, config).Valid
	model := &probe.SimulatedJobRunner{Policies: matcher.BuildNetworkPolicies(true, state.Policies)}
	want, got := byKey(model.RunJobs(jobs)), map[string]*probe.JobResult{}
	wrong := jobs
	for try, timeout := range r.timeouts {
		maps.Copy(got, byKey(r.send(wrong, timeout)))
		wrong = slices.DeleteFunc(slices.Clone(wrong), func(job *probe.Job) bool {
			return job.FromKey == job.ToKey || got[job.Key()].Combined == want[job.Key()].Combined
		})
		if try == 0 {
			t = count(jobs, want)
			t.late, t.slow = split(wrong, want)
		}
	}
	t.mismatches = len(wrong)
	late, slow := split(wrong, want)
	t.late, t.slow = t.late-late, t.slow-slow
	if len(wrong) == 0 {
		return t, ""
	}
	var lines []string
	for _, job := range wrong {
		key := job.Key()
		lines = append(lines, fmt.Sprintf("%s -> %s %s: want %s, is %s\n",
			job.FromKey, job.ToKey, got[key].Key(), want[key].Combined, got[key].Combined))
	}
	return t, fmt.Sprintf("want (%s allowed, %s blocked):\n%sis:\n%sdifference:\n%spolicies:\n%s",
		probe.ConnectivityAllowed.ShortString(), probe.ConnectivityBlocked.ShortString(),
		table(state, want), table(state, got), first(lines), policies(state))
}

// count counts the probes, and those that have to be blocked.
func count(jobs []*probe.Job, want map[string]*probe.JobResult) (t tally) {
	for _, job := range jobs {
		if job.FromKey == job.ToKey {
			continue
		}
		t.probes++
		if want[job.Key()].Combined == probe.ConnectivityBlocked {
			t.blocked++
		}
	}
	return t
}

// split counts which of the jobs have to be allowed, and which blocked.
func split(jobs []*probe.Job, want map[string]*probe.JobResult) (allowed, blocked int) {
	t := count(jobs, want)
	return t.probes - t.blocked, t.blocked
}

// shownLines is how many differences are listed; the tables have them all.
const shownLines = 20

func first(lines []string) string {
	slices.Sort(lines)
	if more := len(lines) - shownLines; more > 0 {
		lines = append(lines[:shownLines], fmt.Sprintf("and %d more\n", more))
	}
	return strings.Join(lines, "")
}

// send runs all jobs at once. The timeout is in seconds.
func (r *runner) send(jobs []*probe.Job, timeout int) []*probe.JobResult {
	for _, job := range jobs {
		job.TimeoutSeconds = timeout
	}
	return (&probe.KubeJobRunner{Kubernetes: r.kubernetes, Workers: len(jobs)}).RunJobs(jobs)
}

func byKey(results []*probe.JobResult) map[string]*probe.JobResult {
	byKey := make(map[string]*probe.JobResult, len(results))
	for _, result := range results {
		byKey[result.Job.Key()] = result
	}
	return byKey
}

func table(state *connectivity.TestCaseState, results map[string]*probe.JobResult) string {
	var list []*probe.JobResult
	for _, result := range results {
		list = append(list, result)
	}
	return probe.NewTableFromJobResults(state.Resources, list).RenderTable()
}

func policies(state *connectivity.TestCaseState) string {
	var texts []string
	for _, policy := range state.Policies {
		text, err := yaml.Marshal(policy)
		if err != nil {
			text = []byte(err.Error())
		}
		texts = append(texts, string(text))
	}
	return strings.Join(texts, "---\n")
}
