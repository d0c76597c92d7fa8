package judge

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge/judgetest"
)

func TestJudgeNodeComparesPods(t *testing.T) {
	held := judgetest.Listing("uid-db", 2)
	pods := func(digests ...string) func(*v1alpha1.NodeEnforcementStatus) {
		return func(status *v1alpha1.NodeEnforcementStatus) { status.NodeUID, status.Pods = "node", digests }
	}
	for name, test := range map[string]struct {
		report *v1alpha1.NodeEnforcementStatus
		doubt  string
		state  nodeState
		reason string
	}{
		"all are listed":                {judgetest.Report(held, pods("a", "b")), "", nodeCurrent, ""},
		"pods of others and of before":  {judgetest.Report(held, pods("0", "a", "aa", "b", "c")), "", nodeCurrent, ""},
		"one isn't listed":              {judgetest.Report(held, pods("a", "c")), "", nodeProgressing, "Progressing"},
		"none is listed":                {judgetest.Report(held, pods()), "", nodeProgressing, "Progressing"},
		"an agent of an older release":  {judgetest.Report(held), "", nodeCurrent, ""},
		"no room for one":               {judgetest.Report(held, pods("a"), judgetest.Truncated), "", nodeFailed, "ReportTruncated"},
		"listed, with no room for more": {judgetest.Report(held, pods("a", "b"), judgetest.Truncated), "", nodeCurrent, ""},
		"an older generation":           {judgetest.Report(judgetest.Listing("uid-db", 1), pods("a", "b")), "", nodeProgressing, "Progressing"},
		"about another Node":            {judgetest.Report(held, pods("a", "b")), "why", nodeAgentStale, "AgentStale"},
		"a failure of another Node":     {judgetest.Report(judgetest.Failing("uid-db", "RestoreFailed", "x"), pods("a", "b")), "why", nodeAgentStale, "AgentStale"},
	} {
		t.Run(name, func(t *testing.T) {
			found := judgeNode(policy, Node{Name: "node-1", Agent: AgentReady, Report: test.report, Doubt: test.doubt, Pods: []string{"b", "a"}})
			require.Equal(t, test.state, found.state)
			require.Equal(t, test.reason, found.reason)
		})
	}
	waiting := Policy(policy, []Node{{Name: "node-1", Agent: AgentReady, Report: judgetest.Report(held, pods("a")), Pods: []string{"a", "b"}}})
	require.Equal(t, "0/1 nodes hold generation 2 of NetworkPolicy appiso-db; waiting for node node-1: "+
		"new or relabelled pods there that its agent hasn't confirmed yet: 1", waiting.Enforced.Message)
}

func TestDoubtOf(t *testing.T) {
	node := func(uid types.UID, boot string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{UID: uid}}
		n.Status.NodeInfo.BootID = boot
		return n
	}
	said := func(uid types.UID, boot string, owners ...types.UID) *v1alpha1.NodeEnforcement {
		r := &v1alpha1.NodeEnforcement{Status: v1alpha1.NodeEnforcementStatus{NodeUID: uid, BootID: boot}}
		for _, owner := range owners {
			r.OwnerReferences = append(r.OwnerReferences, metav1.OwnerReference{UID: owner})
		}
		return r
	}
	for name, test := range map[string]struct {
		node   *corev1.Node
		report *v1alpha1.NodeEnforcement
		want   string
	}{
		"of this Node and boot":                           {node("n", "1"), said("n", "1", "n"), ""},
		"before the last boot":                            {node("n", "2"), said("n", "1", "n"), "last boot"},
		"of an earlier Node":                              {node("new", "1"), said("n", "1", "n"), "earlier Node"},
		"of an earlier Node, and owned by the new one":    {node("new", "1"), said("n", "1", "new"), "earlier Node"},
		"of an older release":                             {node("n", "1"), said("", "", "n"), ""},
		"of an older release, and an earlier Node":        {node("new", "1"), said("", "", "n"), "earlier Node"},
		"a kubelet that tells no boot":                    {node("n", ""), said("n", "", "n"), ""},
		"a boot that the kubelet told since":              {node("n", "1"), said("n", "", "n"), ""},
		"of a Node that is gone":                          {nil, said("n", "1", "n"), "no Node"},
		"of an older release, and no Node in the cluster": {nil, said("", ""), ""},
	} {
		t.Run(name, func(t *testing.T) {
			doubt := DoubtOf(test.node, test.report)
			require.Equal(t, test.want == "", doubt == "", doubt)
			require.Contains(t, doubt, test.want)
		})
	}
}
