package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// churnPerSecond is how many changes of pods an agent is told of.
	churnPerSecond = 100

	// A round is what is done to two remote pods: one gets another label, one is deleted,
	// made again elsewhere, and gets its address.
	changesPerRound = 4
	churners        = 8
)

// churn goes round the remote pods for some time and returns how many changes it
// made. A slow API server makes them fewer.
func (s *scene) churn(t testing.TB, duration time.Duration) int {
	t.Helper()
	rounds := make(chan int, churners)
	go func() {
		defer close(rounds)
		ticker := time.NewTicker(time.Second * changesPerRound / churnPerSecond)
		defer ticker.Stop()
		for number, end := 0, time.Now().Add(duration); time.Now().Before(end); number++ {
			<-ticker.C
			rounds <- number
		}
	}()
	var changed atomic.Int64
	base := s.rounds
	parallel(t, churners, func(ctx context.Context, _ int) error {
		for number := range rounds {
			if err := s.churnRound(ctx, base+number, &changed); err != nil {
				return err
			}
		}
		return nil
	})
	s.rounds += int(changed.Load()) / changesPerRound
	return int(changed.Load())
}

func (s *scene) churnRound(ctx context.Context, number int, changed *atomic.Int64) error {
	labelled, replaced := s.remotePod(2*number), s.remotePod(2*number+1)
	_, err := s.api.CoreV1().Pods(labelled.Namespace).Patch(ctx, labelled.Name, types.MergePatchType,
		appPatch(fmt.Sprintf("a%d", (number+number/apps)%apps)), metav1.PatchOptions{})
	if err != nil {
		return err
	}
	changed.Add(1)
	now := int64(0)
	if err := s.api.CoreV1().Pods(replaced.Namespace).Delete(ctx, replaced.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		return err
	}
	changed.Add(1)
	pod := newPod(replaced.Namespace, replaced.Name, appLabels(number))
	place(pod, fmt.Sprintf("remote-%05d", number%podsPerNode), remoteAddr(mostPods+number%mostPods))
	if err := runPod(ctx, s.api, pod); err != nil {
		return err
	}
	changed.Add(changesPerRound - 2)
	return nil
}

// remotePod walks over the remote pods in steps that don't stay in one namespace, and
// comes to each of them before it comes to any again.
func (s *scene) remotePod(number int) types.NamespacedName {
	return s.remote[number*churnStride%len(s.remote)]
}

// churnStride is prime: it has no factor in common with a number of pods, other than
// its own multiples.
const churnStride = 7919

// remotePods names the pods that aren't local, the senders left out.
func (s size) remotePods() []types.NamespacedName {
	var remote []types.NamespacedName
	local := s.localPods()
	for number := range s.namespaces * s.pods {
		if _, is := local[number]; !is {
			remote = append(remote, types.NamespacedName{Namespace: namespaceName(number / s.pods), Name: fmt.Sprintf("pod-%04d", number%s.pods)})
		}
	}
	return remote
}

func TestChurnComesToEveryRemotePod(t *testing.T) {
	s := &scene{remote: size{namespaces: 10, pods: 10, policies: 3, local: 5}.remotePods()}
	seen := map[types.NamespacedName]bool{}
	for number := range 95 {
		seen[s.remotePod(number)] = true
	}
	require.Len(t, seen, 95)
}
