package roads

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/moat-dev/moat/hack/localcluster"
)

const (
	systemNamespace = "moat-system"
	// otherNamespace is where Moat moves to.
	otherNamespace = "moat-elsewhere"
	// roadsNamespace is where the pods are.
	roadsNamespace = "roads"

	image = "ghcr.io/moat-dev/moat"
	// imageTag is this checkout's image, otherTag the same with another version in it,
	// and missingTag none.
	imageTag   = "dev"
	otherTag   = "roads"
	missingTag = "missing"

	// world is the host outside of the cluster.
	world = "world"
	// worldAddress is one that pods may send to.
	worldAddress = "10.0.0.10"
)

// nodes are those of the local cluster.
var nodes = []string{"node-1", "node-2", "node-3"}

// manifests of this suite, from the root of the checkout.
func manifest(name string) string { return filepath.Join("test", "roads", "testdata", name) }

// scene is the local cluster with the pods that are pinged.
type scene struct {
	*shell
	namespaces map[string]netns.NsHandle // of the pods and the world, by name
	addresses  map[string]netip.Addr
	standing   **installation // what the last road left in good health, or nil
}

// newScene starts the cluster, unless it is up, with the images that the roads need, and
// the pods.
func newScene(ctx context.Context, t *testing.T, roads []road) *scene {
	t.Helper()
	s := &scene{
		shell:      &shell{ctx: ctx, t: t, log: os.Stdout, begun: time.Now()},
		namespaces: map[string]netns.NsHandle{}, addresses: map[string]netip.Addr{}, standing: new(*installation),
	}
	s.say("starting the local cluster, unless it is up, and building Moat's images")
	s.do(localcluster.Compile()...)
	s.do("go", "build", "-o", "bin/moat", "./cmd/moat")
	s.do("up")
	tags := []string{imageTag}
	for _, r := range roads {
		if r.image != "" && !slices.Contains(tags, r.image) {
			tags = append(tags, r.image)
		}
	}
	for _, tag := range tags {
		s.do("hack/image/build.sh", tag)
		s.do("load-image", localcluster.ImageFile(tag))
	}
	s.startPods()
	return s
}

// startPods starts on each node a pod that a policy closes and one that none selects,
// and on one node a client that the policy allows.
func (s *scene) startPods() {
	s.t.Helper()
	s.removeMoat()
	s.do("kubectl", "delete", "namespace", roadsNamespace, "--ignore-not-found", "--timeout=90s")
	s.do("kubectl", "create", "namespace", roadsNamespace)
	s.do("kubectl", "-n", roadsNamespace, "wait", "--for=create", "serviceaccount/default", "--timeout=30s")
	s.do("kubectl", "apply", "-f", manifest("policy.yaml"))
	var manifests []string
	for _, node := range nodes {
		manifests = append(manifests, podManifest("closed-"+node, node, "kind: closed"), podManifest("open-"+node, node, "kind: open"))
	}
	manifests = append(manifests, podManifest("client", nodes[1], "kind: client"))
	s.input(strings.Join(manifests, "---\n"), "kubectl", "apply", "-f", "-")
	s.do("kubectl", "-n", roadsNamespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=90s")
	for name, addr := range s.podAddresses("kind in (open, closed, client)") {
		ns, err := namespaceOf(addr)
		require.NoError(s.t, err)
		s.namespaces[name], s.addresses[name] = ns, addr
	}
	ns, err := machineNamespace(world)
	require.NoError(s.t, err)
	s.namespaces[world], s.addresses[world] = ns, netip.MustParseAddr(worldAddress)
}

// podManifest is a pod that sleeps, on a node that the scheduler has to agree with; ""
// leaves it to the scheduler.
func podManifest(name, node, label string) string {
	selector := "{}"
	if node != "" {
		selector = "{kubernetes.io/hostname: " + node + "}"
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, labels: {%s}}
spec:
  nodeSelector: %s
  terminationGracePeriodSeconds: 0
  containers:
    - name: busybox
      image: busybox:local
      imagePullPolicy: Never
      command: [sleep, infinity]
`, name, roadsNamespace, label, selector)
}

// podAddresses returns the addresses of the suite's pods that have one, by name.
func (s *scene) podAddresses(selector string) map[string]netip.Addr {
	s.t.Helper()
	list := s.do("kubectl", "-n", roadsNamespace, "get", "pods", "-l", selector,
		"-o", `jsonpath={range .items[*]}{.metadata.name} {.status.podIP}{"\n"}{end}`)
	found := map[string]netip.Addr{}
	for line := range strings.Lines(list) {
		if words := strings.Fields(line); len(words) == 2 {
			found[words[0]] = netip.MustParseAddr(words[1])
		}
	}
	return found
}

// streams returns the pings of a road: to the closed pods of all nodes, which only the
// client may send to; from them, which is forbidden; and between the open ones and the
// world.
func (s *scene) streams() []*stream {
	var all []*stream
	add := func(from, to, closedOn string) {
		all = append(all, &stream{from: from, to: to, target: s.addresses[to], closedOn: closedOn})
	}
	for i, node := range nodes {
		next := nodes[(i+1)%len(nodes)]
		add(world, "closed-"+node, node)
		add("open-"+node, "closed-"+node, node)
		add("open-"+next, "closed-"+node, node)
		add("closed-"+node, world, node)
		add("closed-"+node, "open-"+next, node)
		add("client", "closed-"+node, "")
		add(world, "open-"+node, "")
		add("open-"+node, world, "")
		add("open-"+node, "open-"+next, "")
	}
	return all
}

// ping begins all streams. The returned function ends them.
func (s *scene) ping(streams []*stream) (end func()) {
	s.t.Helper()
	from := map[string][]*stream{}
	for _, st := range streams {
		from[st.from] = append(from[st.from], st)
	}
	var pingers []*pinger
	for host, own := range from {
		p, err := startPinger(s.namespaces[host], own)
		require.NoError(s.t, err)
		pingers = append(pingers, p)
	}
	return func() { inParallel(pingers, (*pinger).end) }
}

// traces returns what each node's packet filter holds of Moat.
func (s *scene) traces() map[string]string {
	found := make([]string, len(nodes))
	inParallel(nodes, func(node string) {
		dump, err := s.try(localcluster.TracesCommand(node)...)
		if err != nil {
			dump = "moat-? " + err.Error()
		}
		found[slices.Index(nodes, node)] = localcluster.Traces(dump)
	})
	all := map[string]string{}
	for i, node := range nodes {
		all[node] = found[i]
	}
	return all
}

// await polls until a condition holds and fails the road if it doesn't in time.
func (s *scene) await(what string, limit time.Duration, holds func() bool) {
	s.t.Helper()
	err := wait.PollUntilContextTimeout(s.ctx, 500*time.Millisecond, limit, true, func(context.Context) (bool, error) { return holds(), nil })
	require.NoErrorf(s.t, err, "%s: not within %s", what, limit)
}
