package dataplane

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/health"
	"github.com/moat-dev/moat/dataplane/host"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/metrics/metricstest"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/report"
	"github.com/moat-dev/moat/dataplane/watch"
)

// dummy makes a dummy interface on a node, or a bridge without ports where the kernel has
// no dummies: the name is what counts. removeLink takes one away.
func dummy(t *testing.T, node *nodetest.Node, name string) {
	t.Helper()
	require.NoError(t, node.Do(func() error {
		attrs := netlink.LinkAttrs{Name: name, TxQLen: -1}
		err := netlink.LinkAdd(&netlink.Dummy{LinkAttrs: attrs})
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
		}
		return err
	}))
}

func removeLink(t *testing.T, node *nodetest.Node, name string) {
	t.Helper()
	require.NoError(t, node.Do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	}))
}

// Who serves Services by IPVS is known by the link that binds their addresses.
func TestIPVSIsSeenByItsLink(t *testing.T) {
	nodetest.RequireKernel(t)
	node := nodetest.NewNode(t)
	look := func() error { return node.Do(host.ServesByIPVS) }
	require.NoError(t, look())
	dummy(t, node, "kube-ipvs1")
	require.NoError(t, look(), "another program's")
	for link, program := range map[string]string{"kube-ipvs0": "kube-proxy", "kube-dummy-if": "kube-router"} {
		dummy(t, node, link)
		require.ErrorContains(t, look(), "the interface "+link+" is there: what "+program+" sends")
		removeLink(t, node, link)
		require.NoError(t, look())
	}
}

// Each source names what it found itself, and the gravest comes first.
func TestEachSourceOfDegradedHasItsOwnReason(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	a := &Agent{
		options:  Options{SysctlDir: "/proc/sys/net"},
		enforcer: s.enforcer,
		storage:  watch.NewStorageCheck(nil, thisNode),
	}
	reasons := func() (found []string) {
		require.NoError(t, s.node.Do(func() error {
			found = report.ReasonsOf(a.degradations(time.Now().Add(nodeLookEvery)))
			return nil
		}))
		return found
	}
	require.Empty(t, reasons())
	s.enforcer.cutter.NoteFailure(errors.New("listing the table of connections: no"))
	require.Equal(t, []string{v1alpha1.NodeReasonConnectionsUncut}, reasons())
	a.storage = checkedStorage(t, brokenReader{})
	dummy(t, s.node, "kube-ipvs0")
	a.look, a.options.SysctlDir = nodeLook{}, t.TempDir()
	require.Equal(t, report.DegradedReasons, reasons())

	removeLink(t, s.node, "kube-ipvs0")
	s.enforcer.cutter.NoteFailure(nil)
	a.storage, a.options.SysctlDir = watch.NewStorageCheck(nil, thisNode), "/proc/sys/net"
	require.Empty(t, reasons(), "what is found is looked for each time")
}

// brokenReader is an API server that can't read what it stores.
type brokenReader struct{ client.Reader }

func (brokenReader) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return apierrors.NewInternalError(errors.New("no"))
}

// checkedStorage returns a check that asked once.
func checkedStorage(t *testing.T, reader client.Reader) *watch.StorageCheck {
	t.Helper()
	check := watch.NewStorageCheck(reader, thisNode)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, check.Start(ctx))
	return check
}

// Where kube-proxy works by IPVS the node is Degraded, with metric and event, and its
// agent stays Ready: it enforces what it can. When the link goes all is well again.
func TestADegradedAgentIsReady(t *testing.T) {
	s := newAgentScene(t)
	server := s.node.AddPod(t, "10.244.1.95")
	peer := s.node.AddPod(t, "10.244.1.96")
	s.pod("server", map[string]string{"app": "server"}, server)
	dummy(t, s.node, "kube-ipvs0")
	s.start()
	defer s.stop()
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "server"}}
	require.NoError(t, yaml.Unmarshal([]byte(`{podSelector: {}, policyTypes: [Ingress]}`), &np.Spec))
	require.NoError(t, s.admin.Create(t.Context(), np))
	s.eventually(func() bool { return s.enforces(np) }, "the rules are in force")
	require.False(t, peer.Ping(server.Addrs[0], silentAfter))

	degraded := func() *metav1.Condition {
		return apimeta.FindStatusCondition(s.report().Status.Conditions, v1alpha1.NodeConditionDegraded)
	}
	require.Equal(t, metav1.ConditionTrue, degraded().Status)
	require.Equal(t, v1alpha1.NodeReasonProxyModeIPVS, degraded().Reason)
	require.Contains(t, degraded().Message, "kube-ipvs0")
	require.True(t, apimeta.IsStatusConditionTrue(s.report().Status.Conditions, v1alpha1.NodeConditionDataplaneSynced))
	require.Equal(t, 1.0, metricstest.Scrape(t, s.agent.enforcer.metrics)["degraded ProxyModeIPVS"])
	s.eventually(func() bool { return s.nodeEvent(v1alpha1.NodeReasonProxyModeIPVS) != nil }, "an event of the Node")
	require.Contains(t, s.nodeEvent(v1alpha1.NodeReasonProxyModeIPVS).Note, "kube-ipvs0")
	for _, path := range []string{"/readyz", "/healthz"} {
		w := httptest.NewRecorder()
		s.agent.health.Handler(health.Holder{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		require.Equal(t, http.StatusOK, w.Code, "%s: %s", path, w.Body)
	}

	removeLink(t, s.node, "kube-ipvs0")
	s.eventually(func() bool { return degraded().Status == metav1.ConditionFalse }, "the link is gone")
	require.Equal(t, v1alpha1.NodeReasonHealthy, degraded().Reason)
	require.Zero(t, metricstest.Scrape(t, s.agent.enforcer.metrics)["degraded ProxyModeIPVS"])
	s.eventually(func() bool { return s.nodeEvent(v1alpha1.EventReasonRecovered) != nil }, "another event")
}

// nodeEvent returns the event of the scene's Node with this reason, or nil.
func (s *agentScene) nodeEvent(reason string) *eventsv1.Event {
	list := &eventsv1.EventList{}
	_ = s.admin.List(context.Background(), list, client.InNamespace(corev1.NamespaceDefault))
	for i := range list.Items {
		if e := &list.Items[i]; e.Regarding.Kind == "Node" && e.Regarding.Name == s.nodeName && e.Reason == reason {
			return e
		}
	}
	return nil
}
