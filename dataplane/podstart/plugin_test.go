package podstart

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
)

// keeper remembers what it was told, and holds starts while told to.
type keeper struct {
	mu        sync.Mutex
	sandboxes map[string]Sandbox
	connected bool
	hold      bool
	reason    error // what Connection said last
}

func (k *keeper) do(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

func (k *keeper) Replace(all []Sandbox) {
	k.do(func() {
		k.sandboxes = map[string]Sandbox{}
		for _, s := range all {
			k.sandboxes[s.ID] = s
		}
	})
}

func (k *keeper) Start(ctx context.Context, s Sandbox) {
	hold := false
	k.do(func() { k.sandboxes[s.ID], hold = s, k.hold })
	if hold {
		<-ctx.Done()
	}
}

func (k *keeper) Stop(_ context.Context, s Sandbox) { k.do(func() { delete(k.sandboxes, s.ID) }) }
func (k *keeper) Connection(err error)              { k.do(func() { k.connected, k.reason = err == nil, err }) }

// silent returns what the runtime is called that tells no addresses, empty for none.
func (k *keeper) silent() (text string) {
	k.do(func() {
		if silent := (*SilentError)(nil); errors.As(k.reason, &silent) {
			text = silent.Error()
		}
	})
	return text
}

func (k *keeper) isConnected() (is bool) {
	k.do(func() { is = k.connected })
	return is
}

func (k *keeper) has(id string) (has bool) {
	k.do(func() { _, has = k.sandboxes[id] })
	return has
}

// startRuntime serves NRI as a container runtime that runs the given pods.
func startRuntime(t *testing.T, socket string, pods ...*api.PodSandbox) *adaptation.Adaptation {
	t.Helper()
	return startVersion(t, socket, "test", "v1", pods...)
}

// startVersion is startRuntime for a runtime of this name and version.
func startVersion(t *testing.T, socket, name, version string, pods ...*api.PodSandbox) *adaptation.Adaptation {
	t.Helper()
	runtime, err := adaptation.New(name, version,
		func(ctx context.Context, tell adaptation.SyncCB) error {
			_, err := tell(ctx, pods, nil)
			return err
		},
		func(context.Context, []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) { return nil, nil },
		adaptation.WithSocketPath(socket), adaptation.WithPluginPath(t.TempDir()), adaptation.WithPluginConfigPath(t.TempDir()))
	require.NoError(t, err)
	require.NoError(t, runtime.Start())
	t.Cleanup(runtime.Stop)
	return runtime
}

// startPod starts a pod as a runtime does: not while a plugin is being registered, which
// would not hear of it.
func startPod(t *testing.T, runtime *adaptation.Adaptation, pod *api.PodSandbox) {
	t.Helper()
	block := runtime.BlockPluginSync()
	defer block.Unblock()
	require.NoError(t, runtime.RunPodSandbox(t.Context(), &api.RunPodSandboxRequest{Pod: pod}))
}

// forward leads connections to one socket on to another. A runtime that is made in
// this process can't end as a process does, with its connections: the returned
// function ends them, and the socket.
func forward(t *testing.T, from, to string) (end func()) {
	t.Helper()
	listener, err := net.Listen("unix", from)
	require.NoError(t, err)
	var mu sync.Mutex
	var open []net.Conn
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			mu.Lock()
			open = append(open, in, out)
			mu.Unlock()
			go func() { _, _ = io.Copy(in, out) }()
			go func() { _, _ = io.Copy(out, in) }()
		}
	}()
	end = func() {
		_ = listener.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, conn := range open {
			_ = conn.Close()
		}
	}
	t.Cleanup(end)
	return end
}

func pod(id string, ips ...string) *api.PodSandbox {
	return &api.PodSandbox{
		Id: id, Uid: "uid-" + id, Namespace: "default", Name: id, Ips: ips,
		Labels: map[string]string{"app": "web", "io.kubernetes.pod.name": id},
		Linux:  &api.LinuxPodSandbox{Namespaces: []*api.LinuxNamespace{{Type: "network", Path: "/run/netns/" + id}}},
	}
}

// The kubelet and the runtime add labels to a pod's own. Others that begin like these are the
// pod's, and a policy may select it by them.
func TestLabelsOfThePodAreKept(t *testing.T) {
	of := pod("web", "10.244.1.2")
	own := map[string]string{"app": "web", "io.kubernetes.tier": "db", "io.kubernetes.pod.name.x": "y"}
	of.Labels = maps.Clone(own)
	for _, added := range []string{"pod.name", "pod.namespace", "pod.uid", "container.name"} {
		of.Labels["io.kubernetes."+added] = "x"
	}
	sandbox, ok := parse(of)
	require.True(t, ok)
	require.Equal(t, own, sandbox.Labels)
}

func startPlugin(t *testing.T, socket string) *keeper {
	t.Helper()
	k := &keeper{sandboxes: map[string]Sandbox{}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		New(socket, k, logr.Discard()).Run(ctx)
		close(ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return k
}

func eventually(t *testing.T, condition func() bool, message string) {
	t.Helper()
	require.Eventually(t, condition, 30*time.Second, 10*time.Millisecond, message)
}

// The plugin waits for a runtime, learns what it runs, follows its pods, and does
// so again with the next runtime.
func TestPluginFollowsTheRuntime(t *testing.T) {
	socket, first := filepath.Join(t.TempDir(), "nri.sock"), filepath.Join(t.TempDir(), "first.sock")
	k := startPlugin(t, socket)
	runtime := startRuntime(t, first, pod("old", "10.0.0.1"))
	end := forward(t, socket, first)
	eventually(t, k.isConnected, "connected")
	require.True(t, k.has("old"))

	fresh := pod("fresh", "10.0.0.2", "fd00::2")
	startPod(t, runtime, fresh)
	require.Equal(t, Sandbox{
		ID: "fresh", UID: "uid-fresh", Namespace: "default", Name: "fresh", Labels: map[string]string{"app": "web"},
		Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}, NetNS: "/run/netns/fresh",
	}, k.sandboxes["fresh"])
	require.NoError(t, runtime.StopPodSandbox(t.Context(), &api.StopPodSandboxRequest{Pod: fresh}))
	require.False(t, k.has("fresh"))

	end()
	eventually(t, func() bool { return !k.isConnected() }, "noticed")
	startRuntime(t, socket, pod("other", "10.0.0.3"))
	eventually(t, k.isConnected, "connected again")
	require.True(t, k.has("other"))
	require.False(t, k.has("old"))
}

// A start that can't be programmed goes on within the runtime's patience, without an
// error and without the runtime dropping the plugin.
func TestAHeldStartGoesOnInTime(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "nri.sock")
	runtime := startRuntime(t, socket)
	k := startPlugin(t, socket)
	eventually(t, k.isConnected, "connected")
	k.do(func() { k.hold = true })
	begun := time.Now()
	startPod(t, runtime, pod("a", "10.0.0.1"))
	require.Greater(t, time.Since(begun), holdAtMost/2)
	k.do(func() { k.hold = false })
	startPod(t, runtime, pod("b", "10.0.0.2"))
	require.True(t, k.has("b"), "still connected")
}

// Pods without a network of their own are none of the plugin's business.
func TestHostNetworkIsNotHeld(t *testing.T) {
	host := pod("host", "172.30.0.1")
	host.Linux.Namespaces[0].Type = "ipc"
	_, guarded := parse(host)
	require.False(t, guarded)
	_, guarded = parse(pod("no-address"))
	require.False(t, guarded)
}

// Of several sandboxes of one pod the one with a container lives; one alone lives.
func TestLivingSandboxes(t *testing.T) {
	again := pod("again", "10.0.0.2")
	again.Uid = "uid-dead"
	pods := []*api.PodSandbox{pod("dead", "10.0.0.1"), again, pod("alone", "10.0.0.3")}
	containers := []*api.Container{
		{PodSandboxId: "dead", State: api.ContainerState_CONTAINER_STOPPED},
		{PodSandboxId: "again", State: api.ContainerState_CONTAINER_RUNNING},
	}
	var ids []string
	for _, pod := range living(pods, containers) {
		ids = append(ids, pod.GetId())
	}
	require.Equal(t, []string{"again", "alone"}, ids)
}

// After a runtime ends in the middle of the registration, the NRI library waits without an end. The
// plugin goes on.
func TestARuntimeThatGoesDuringRegistration(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "nri.sock")
	k := startPlugin(t, socket)
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	for range 2 {
		conn, err := listener.Accept()
		require.NoError(t, err)
		_, err = conn.Read(make([]byte, 1))
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	}
	require.NoError(t, listener.Close())
	startRuntime(t, socket)
	eventually(t, k.isConnected, "connected")
}

// hostPod is a pod that uses its node's network.
func hostPod(id string) *api.PodSandbox {
	p := pod(id)
	p.Linux.Namespaces[0].Type = "ipc"
	return p
}

// A runtime that is connected and tells no addresses of pods doesn't hold their starts.
// What it tells decides; its version does only while it has told of no pod that has a
// network of its own.
func TestARuntimeThatTellsNoAddresses(t *testing.T) {
	const containerd20 = "the container runtime containerd v2.0.5 tells NRI plugins no addresses of pods; containerd does from 2.1 on"
	const crio131 = "the container runtime cri-o 1.31.4 tells NRI plugins no addresses of pods; cri-o does from 1.32 on"
	const unknown = "the container runtime test v1 tells NRI plugins no addresses of pods"
	for name, row := range map[string]struct {
		runtime, version string
		pods             []*api.PodSandbox
		silent           string // empty: it holds the starts
	}{
		"containerd 2.0 with pods":           {"containerd", "v2.0.5", []*api.PodSandbox{hostPod("proxy"), pod("a"), pod("b")}, containerd20},
		"containerd 2.0 without pods":        {"containerd", "v2.0.5", nil, containerd20},
		"containerd 2.0 with a backport":     {"containerd", "v2.0.5", []*api.PodSandbox{hostPod("proxy"), pod("a", "10.0.0.1")}, ""},
		"containerd 2.1 without pods":        {"containerd", "v2.1.0-rc.1", []*api.PodSandbox{hostPod("proxy")}, ""},
		"containerd 2.1 with pods":           {"containerd", "2.1.0+unknown", []*api.PodSandbox{pod("a", "10.0.0.1")}, ""},
		"one pod of several has no address":  {"containerd", "v2.2.0", []*api.PodSandbox{pod("a"), pod("b", "10.0.0.1"), pod("c")}, ""},
		"CRI-O 1.31 without pods":            {"cri-o", "1.31.4", nil, crio131},
		"CRI-O 1.32 without pods":            {"cri-o", "1.32.0", nil, ""},
		"an unknown runtime without pods":    {"test", "v1", nil, ""},
		"an unknown runtime without address": {"test", "v1", []*api.PodSandbox{pod("a")}, unknown},
		"an unreadable version":              {"containerd", "main", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "nri.sock")
			startVersion(t, socket, row.runtime, row.version, row.pods...)
			k := startPlugin(t, socket)
			if row.silent == "" {
				eventually(t, k.isConnected, "it holds the starts")
				return
			}
			eventually(t, func() bool { return k.silent() == row.silent }, row.silent)
			require.False(t, k.isConnected())
		})
	}
}

// The first pods that start correct what the runtime's version let expect. Without their addresses,
// the plugin doesn't hold starts.
func TestARuntimeIsJudgedByThePodsThatStart(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "nri.sock")
	runtime := startVersion(t, socket, "containerd", "v2.1.0")
	k := startPlugin(t, socket)
	eventually(t, k.isConnected, "it may tell addresses")
	k.do(func() { k.hold = true })
	starts := func(p *api.PodSandbox) { startPod(t, runtime, p) }
	starts(hostPod("proxy"))
	require.True(t, k.isConnected(), "a pod without a network of its own says nothing")
	begun := time.Now()
	starts(pod("a"))
	require.Less(t, time.Since(begun), holdAtMost/2, "nothing is known that could be waited for")
	require.Contains(t, k.silent(), "containerd v2.1.0 tells NRI plugins no addresses")
	k.do(func() { k.hold = false })
	starts(pod("b", "10.0.0.2"))
	require.True(t, k.isConnected(), "it does tell them")
	require.True(t, k.has("b"))
	starts(pod("c"))
	require.True(t, k.isConnected(), "one pod without is no proof against it")
}
