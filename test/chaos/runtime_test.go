package chaos

import (
	"context"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	nrilog "github.com/containerd/nri/pkg/log"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// containerRuntime is the part of a container runtime that tells NRI plugins of
// sandboxes: the library that containerd has it from, without containers.
type containerRuntime struct {
	socket     string
	adaptation *adaptation.Adaptation

	mu        sync.Mutex
	sandboxes map[string]*api.PodSandbox // by uid of the pod
}

func newContainerRuntime(t *testing.T) *containerRuntime {
	t.Helper()
	nrilog.Set(silence{})
	dir := t.TempDir()
	r := &containerRuntime{socket: filepath.Join(dir, "nri.sock"), sandboxes: map[string]*api.PodSandbox{}}
	update := func(context.Context, []*adaptation.ContainerUpdate) ([]*adaptation.ContainerUpdate, error) {
		return nil, nil
	}
	var err error
	r.adaptation, err = adaptation.New("chaos", "1", r.synchronize, update, adaptation.WithSocketPath(r.socket),
		adaptation.WithPluginPath(filepath.Join(dir, "plugins")), adaptation.WithPluginConfigPath(filepath.Join(dir, "config")))
	require.NoError(t, err)
	require.NoError(t, r.adaptation.Start())
	t.Cleanup(r.adaptation.Stop)
	return r
}

// synchronize tells a plugin that connects of all sandboxes.
func (r *containerRuntime) synchronize(ctx context.Context, plugin adaptation.SyncCB) error {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.sandboxes))
	r.mu.Unlock()
	_, err := plugin(ctx, all, nil)
	return err
}

// run starts a pod's sandbox and returns when the plugins let its containers start.
func (r *containerRuntime) run(t *testing.T, pod *corev1.Pod, addrs []netip.Addr) {
	t.Helper()
	sandbox := &api.PodSandbox{
		Id: "sandbox-" + string(pod.UID), Uid: string(pod.UID), Namespace: pod.Namespace, Name: pod.Name, Labels: pod.Labels,
		Linux: &api.LinuxPodSandbox{Namespaces: []*api.LinuxNamespace{{Type: "network", Path: "/proc/self/ns/net"}}},
	}
	for _, addr := range addrs {
		sandbox.Ips = append(sandbox.Ips, addr.String())
	}
	// As containerd does: no plugin connects in between.
	block := r.adaptation.BlockPluginSync()
	defer block.Unblock()
	r.mu.Lock()
	r.sandboxes[sandbox.GetUid()] = sandbox
	r.mu.Unlock()
	require.NoError(t, r.adaptation.RunPodSandbox(context.Background(), &api.RunPodSandboxRequest{Pod: sandbox}))
}

// stop ends a pod's sandbox, before the pod loses its network.
func (r *containerRuntime) stop(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	block := r.adaptation.BlockPluginSync()
	defer block.Unblock()
	r.mu.Lock()
	sandbox := r.sandboxes[string(pod.UID)]
	delete(r.sandboxes, string(pod.UID))
	r.mu.Unlock()
	require.NoError(t, r.adaptation.StopPodSandbox(context.Background(), &api.StopPodSandboxRequest{Pod: sandbox}))
	require.NoError(t, r.adaptation.RemovePodSandbox(context.Background(), &api.RemovePodSandboxRequest{Pod: sandbox}))
}

// silence drops what the library says of each plugin.
type silence struct{}

func (silence) Debugf(context.Context, string, ...any) {}
func (silence) Infof(context.Context, string, ...any)  {}
func (silence) Warnf(context.Context, string, ...any)  {}
func (silence) Errorf(context.Context, string, ...any) {}
