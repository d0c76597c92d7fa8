package compile_test

import (
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/iptables"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

var update = flag.Bool("update", false, "write the golden files")

// Each folder of testdata holds the objects of a cluster and what node-1 has in
// its kernel, for each family. "go test ./dataplane/compile -update" writes the golden
// files; read the difference before you commit it.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*/input.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, inputs)
	for _, input := range inputs {
		folder := filepath.Dir(input)
		t.Run(filepath.Base(folder), func(t *testing.T) {
			c := readObjects(t, input).Cluster()
			for _, family := range ruleset.Families() {
				out := compileNode(c, "node-1", family, readPodCIDRs(t, folder)...)
				golden := filepath.Join(folder, strings.ToLower(family.String())+".golden")
				requireGolden(t, golden, goldenText(&out, c))
			}
		})
	}
}

// readPodCIDRs reads the ranges that node-1 guards; in most folders it guards none.
func readPodCIDRs(t *testing.T, folder string) []netip.Prefix {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "node.yaml"))
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(t, err)
	var prefixes []netip.Prefix
	for _, cidr := range readObject[corev1.Node](t, string(text)).Spec.PodCIDRs {
		prefixes = append(prefixes, netip.MustParsePrefix(cidr))
	}
	return prefixes
}

func readObjects(t *testing.T, path string) *policytest.Objects {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	o := &policytest.Objects{}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var meta metav1.TypeMeta
		require.NoError(t, yaml.Unmarshal([]byte(document), &meta))
		switch meta.Kind {
		case "Pod":
			o.Pods = append(o.Pods, readObject[corev1.Pod](t, document))
		case "Namespace":
			o.Namespaces = append(o.Namespaces, readObject[corev1.Namespace](t, document))
		case "NetworkPolicy":
			o.Policies = append(o.Policies, readObject[networkingv1.NetworkPolicy](t, document))
		default:
			require.FailNow(t, "unknown kind", "%q in %s", meta.Kind, path)
		}
	}
	return o
}

func readObject[T any](t *testing.T, document string) T {
	t.Helper()
	var object T
	require.NoError(t, yaml.UnmarshalStrict([]byte(document), &object), document)
	return object
}

func requireGolden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(string(want), got), "%s differs (-want +got)", path)
}

// goldenText prints an output in the words of ipset save and iptables-save. The
// selector of a set that follows pods stands behind its name.
func goldenText(out *compile.Output, c *policy.Cluster) string {
	var text strings.Builder
	members := contents(out, c)
	for _, set := range out.Ruleset.Sets {
		fmt.Fprintf(&text, "create %s %s", set.Name, set.Type)
		if peers, follows := out.Peers[set.Name]; follows {
			fmt.Fprintf(&text, "  # %s", peers.Key())
		}
		fmt.Fprintln(&text)
		for _, member := range memberTexts(members[set.Name]) {
			fmt.Fprintf(&text, "add %s %s\n", set.Name, member)
		}
	}
	table := iptables.Desired(&out.Ruleset)
	for _, hook := range out.Ruleset.Hooks {
		fmt.Fprintf(&text, "\n-I %s 1 %s", hook.Builtin, table.Hooks[hook.Builtin][0].Rule)
	}
	fmt.Fprintln(&text)
	for _, name := range slices.Sorted(maps.Keys(table.Chains)) {
		fmt.Fprintf(&text, "\n:%s\n", name)
		for _, rule := range table.Chains[name] {
			fmt.Fprintf(&text, "-A %s %s\n", name, rule)
		}
	}
	return text.String()
}

func memberTexts(members ruleset.Members) []string {
	var texts []string
	for member := range members {
		text := member.Prefix.String()
		if member.Prefix.IsSingleIP() {
			text = member.Prefix.Addr().String()
		}
		if member.Protocol != 0 {
			text += fmt.Sprintf(",%d:%d", member.Protocol, member.Port)
		}
		texts = append(texts, text)
	}
	slices.Sort(texts)
	return texts
}
