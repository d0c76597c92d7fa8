package podstart

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/go-logr/logr"
)

// session answers the runtime's requests on one connection. It never returns an
// error: that would fail a pod's start.
type session struct {
	plugin  *Plugin
	synced  atomic.Bool
	hearing hearing
}

func (s *session) accepted() bool { return s.synced.Load() }

// Configure is called first on each connection, with the name of the runtime. It chooses no
// events, so the plugin gets all events for which it has methods.
func (s *session) Configure(_ context.Context, _, runtime, version string) (api.EventMask, error) {
	s.hearing.configure(runtime, version)
	return 0, nil
}

// Synchronize is called next, with all pods of the runtime. No pod starts until it returns.
func (s *session) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	running := living(pods, containers)
	for _, pod := range running {
		s.hearing.hear(pod)
	}
	s.plugin.keeper.Replace(parseAll(running))
	s.synced.Store(true)
	s.plugin.keeper.Connection(s.hearing.answer())
	return nil, nil
}

// RunPodSandbox is called before a pod's first container is made.
func (s *session) RunPodSandbox(ctx context.Context, pod *api.PodSandbox) error {
	if s.hearing.hear(pod) {
		s.plugin.keeper.Connection(s.hearing.answer())
	}
	if sandbox, ok := parse(pod); ok {
		ctx, cancel := bounded(ctx, holdAtMost)
		defer cancel()
		s.plugin.keeper.Start(ctx, sandbox)
	}
	return nil
}

// StopPodSandbox is called when all containers of the pod have ended, before its
// addresses are free.
func (s *session) StopPodSandbox(ctx context.Context, pod *api.PodSandbox) error {
	s.stop(ctx, pod)
	return nil
}

// RemovePodSandbox is called without StopPodSandbox where a pod failed to start.
func (s *session) RemovePodSandbox(ctx context.Context, pod *api.PodSandbox) error {
	s.stop(ctx, pod)
	return nil
}

func (s *session) stop(ctx context.Context, pod *api.PodSandbox) {
	ctx, cancel := bounded(ctx, stopAtMost)
	defer cancel()
	sandbox, _ := parse(pod)
	s.plugin.keeper.Stop(ctx, sandbox)
}

// bounded keeps an answer within the time that the runtime waits for it. The runtime sends that
// time with its request, and a quarter of it is left for the way.
func bounded(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(deadline)*3/4)
	}
	return context.WithTimeout(ctx, most)
}

// quietLogger keeps what the NRI library says of each connection for debugging.
type quietLogger struct{ log logr.Logger }

func (q *quietLogger) Debugf(_ context.Context, format string, args ...any) { q.say(format, args) }
func (q *quietLogger) Infof(_ context.Context, format string, args ...any)  { q.say(format, args) }
func (q *quietLogger) Warnf(_ context.Context, format string, args ...any)  { q.say(format, args) }
func (q *quietLogger) Errorf(_ context.Context, format string, args ...any) { q.say(format, args) }

func (q *quietLogger) say(format string, args []any) {
	q.log.V(1).Info("NRI", "message", fmt.Sprintf(format, args...))
}
