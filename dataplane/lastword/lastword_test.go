package lastword

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
)

// server answers lists and watches of pods as it is told. It remembers the streams.
type server struct {
	page    metav1.ListMeta
	refuses error
	old     bool // doesn't stream lists
	streams []*watch.FakeWatcher
}

func (s *server) List(metav1.ListOptions) (runtime.Object, error) {
	if s.refuses != nil {
		return nil, s.refuses
	}
	return &corev1.PodList{ListMeta: s.page}, nil
}

func (s *server) Watch(options metav1.ListOptions) (watch.Interface, error) {
	if s.refuses != nil {
		return nil, s.refuses
	}
	if s.old && options.SendInitialEvents != nil {
		return nil, errors.New("sendInitialEvents is forbidden")
	}
	stream := watch.NewFake()
	s.streams = append(s.streams, stream)
	return stream, nil
}

func listen(w *Words, s *server) toolscache.ListerWatcherWithContext {
	return toolscache.ToListerWatcherWithContext(w.Listen("pods", s))
}

func (w *Words) age() time.Duration { return w.Ages()[0].Age }

func pod(annotations map[string]string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: annotations, ResourceVersion: "7"}}
}

func TestWhatIsAWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := New(), &server{}
		lw := listen(w, s)
		time.Sleep(time.Minute)
		require.Equal(t, time.Minute, w.age(), "of one that never heard a word")

		_, err := lw.ListWithContext(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		require.Zero(t, w.age(), "a list")
		time.Sleep(time.Second)
		s.page.Continue = "more"
		_, err = lw.ListWithContext(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		require.Equal(t, time.Second, w.age(), "a part of a list is none")

		stream, err := lw.WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "6"})
		require.NoError(t, err)
		defer stream.Stop()
		require.Zero(t, w.age(), "the answer to a watch")
		for _, kind := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted, watch.Bookmark} {
			time.Sleep(time.Second)
			require.Equal(t, time.Second, w.age())
			go s.streams[0].Action(kind, pod(nil))
			require.Equal(t, kind, (<-stream.ResultChan()).Type, "events are passed on")
			synctest.Wait()
			require.Zero(t, w.age(), kind)
		}
		time.Sleep(time.Second)
		go s.streams[0].Error(&metav1.Status{Code: 410})
		<-stream.ResultChan()
		synctest.Wait()
		require.Equal(t, time.Second, w.age(), "an error is none")

		s.refuses = errors.New("forbidden")
		_, err = lw.ListWithContext(t.Context(), metav1.ListOptions{})
		require.Error(t, err)
		_, err = lw.WatchWithContext(t.Context(), metav1.ListOptions{})
		require.Error(t, err)
		require.Equal(t, time.Second, w.age(), "neither is a refusal")
	})
}

// A streamed list that never ends, such as one that breaks off again and again, leaves the
// store as it was.
func TestAStreamedListIsAWordWhenItIsComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := New(), &server{}
		stream, err := listen(w, s).WatchWithContext(t.Context(), metav1.ListOptions{SendInitialEvents: new(true)})
		require.NoError(t, err)
		defer stream.Stop()
		for range 4 {
			time.Sleep(time.Minute)
			go s.streams[0].Add(pod(nil))
			<-stream.ResultChan()
			synctest.Wait()
		}
		require.Equal(t, 4*time.Minute, w.age())
		require.ErrorContains(t, w.CutOff(), "the API server has said nothing of pods for 4m0s")
		go s.streams[0].Action(watch.Bookmark, pod(map[string]string{metav1.InitialEventsAnnotationKey: "true"}))
		<-stream.ResultChan()
		synctest.Wait()
		require.Zero(t, w.age())
		require.NoError(t, w.CutOff())
	})
}

// The watch that heard nothing for longest decides.
func TestEachWatchCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, pods, nodes := New(), &server{}, &server{}
		lw := listen(w, pods)
		w.Listen("nodes", nodes)
		time.Sleep(CutOffAfter - time.Second)
		_, err := lw.ListWithContext(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		require.NoError(t, w.CutOff())
		time.Sleep(time.Second)
		require.ErrorContains(t, w.CutOff(), "nodes for 3m0s")
		require.Equal(t, []Age{{"nodes", CutOffAfter}, {"pods", time.Second}}, w.Ages())
	})
}

// longestWait is client-go's between two tries.
const longestWait = time.Minute

// reflect runs client-go's own reflector on what the server says. What it does with errors
// is left out: it counts them for the whole process, by a clock that isn't the test's.
func reflect(ctx context.Context, w *Words, s *server) {
	store := toolscache.NewStore(toolscache.MetaNamespaceKeyFunc)
	reflector := toolscache.NewReflector(w.Listen("pods", s), &corev1.Pod{}, store, 0)
	go func() {
		for ctx.Err() == nil {
			if err := reflector.ListAndWatchWithContext(ctx); err != nil {
				time.Sleep(longestWait)
			}
		}
	}()
}

// An API server that answers and sends no bookmark is asked again, by client-go, before
// the agent counts as cut off; so is one whose stream died without a sign.
func TestASilentWatchIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w, s := New(), &server{page: metav1.ListMeta{ResourceVersion: "1"}, old: true}
		reflect(ctx, w, s)
		synctest.Wait()
		listed := len(s.streams)
		for range 60 {
			time.Sleep(10 * time.Second)
			require.NoError(t, w.CutOff())
			require.LessOrEqual(t, w.age(), renewAfter+time.Second)
		}
		require.InDelta(t, listed+5, len(s.streams), 1, "in ten minutes")

		// A cut: neither streams nor requests bring anything.
		s.refuses = errors.New("no route to host")
		time.Sleep(CutOffAfter)
		require.Error(t, w.CutOff())
		s.refuses = nil
		time.Sleep(longestWait)
		synctest.Wait()
		require.NoError(t, w.CutOff())
		cancel()
		time.Sleep(longestWait)
	})
}
