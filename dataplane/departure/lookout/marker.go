package lookout

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/dataplane/departure"
)

// +kubebuilder:rbac:groups="",namespace=moat-system,resources=configmaps,resourceNames=moat-release,verbs=get;list;watch

const (
	// markerName is the ConfigMap whose deletion says that Moat is removed.
	markerName = "moat-release"

	// watchSeconds is how long one watch of the marker lasts: an hour. A removal of Moat deletes
	// the right to watch a moment before the marker. A watch that runs then goes on, and one
	// that begins then is refused. The longer watches last, the fewer agents are refused.
	watchSeconds = 60 * 60

	// watchPause and watchPauseMost bound the pause between two watches, which doubles while
	// they fail.
	watchPause     = time.Second
	watchPauseMost = time.Minute
)

// marker follows the release's marker. It is safe for concurrent use.
type marker struct {
	client    client.WithWatch
	namespace string
	log       logr.Logger

	mu      sync.Mutex
	there   bool
	ever    bool
	deleted time.Time     // zero while it is there
	news    chan struct{} // closed at the next change
}

func newMarker(reader client.WithWatch, namespace string, log logr.Logger) *marker {
	return &marker{client: reader, namespace: namespace, log: log, news: make(chan struct{})}
}

// changed returns a channel that is closed when the marker is deleted or comes back.
func (m *marker) changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.news
}

// seen returns what was seen of the marker until now.
func (m *marker) seen(now time.Time) departure.Marker {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := departure.Marker{Seen: m.ever, Deleted: m.ever && !m.there}
	if seen.Deleted {
		seen.Away = now.Sub(m.deleted)
	}
	return seen
}

// set notes whether the marker is there. A marker that was never there doesn't count as deleted.
func (m *marker) set(state presence) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if there := state == present; there != m.there {
		m.there, m.ever, m.deleted = there, true, time.Time{}
		if !there {
			m.deleted = time.Now()
			m.log.Info("The release's marker was deleted: Moat may be on its way out", "configMap", m.namespace+"/"+markerName)
		}
		close(m.news)
		m.news = make(chan struct{})
	}
}

type presence int

const (
	absent presence = iota
	present
)

// watch follows the marker until the context ends. While it can't read the marker, the last state
// stays.
func (m *marker) watch(ctx context.Context) {
	said, pause := "", watchPause
	for ctx.Err() == nil {
		err := m.follow(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			said, pause = "", watchPause
		default:
			if reason := string(apierrors.ReasonForError(err)); reason != said || said == "" {
				m.log.Info("The release's marker can't be watched; while that is so, its deletion can't tell the agent to clean the node", "configMap", m.namespace+"/"+markerName, "error", err.Error())
				said = reason
			}
			pause = min(2*pause, watchPauseMost)
		}
		// The random part keeps agents apart after a restart of the API server.
		wait := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // No secret depends on it.
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
		wait.Stop()
	}
}

// follow reads the marker and watches it until the watch ends.
func (m *marker) follow(ctx context.Context) error {
	its := &client.ListOptions{Namespace: m.namespace, FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, markerName)}
	list := &corev1.ConfigMapList{}
	if err := m.client.List(ctx, list, its); err != nil {
		return fmt.Errorf("reading the release's marker: %w", err)
	}
	m.set(presenceOf(len(list.Items)))
	its.Raw = &metav1.ListOptions{ResourceVersion: list.ResourceVersion, TimeoutSeconds: new(int64(watchSeconds))}
	events, err := m.client.Watch(ctx, &corev1.ConfigMapList{}, its)
	if err != nil {
		return fmt.Errorf("watching the release's marker: %w", err)
	}
	defer context.AfterFunc(ctx, events.Stop)()
	defer events.Stop()
	for event := range events.ResultChan() {
		switch event.Type {
		case watch.Added, watch.Modified:
			m.set(present)
		case watch.Deleted:
			m.set(absent)
		case watch.Error:
			return fmt.Errorf("watching the release's marker: %w", apierrors.FromObject(event.Object))
		case watch.Bookmark:
		}
	}
	return nil
}

func presenceOf(objects int) presence {
	if objects > 0 {
		return present
	}
	return absent
}
