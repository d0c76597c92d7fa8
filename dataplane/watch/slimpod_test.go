package watch

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/randfill"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/dataplane/policy"
)

// decoded returns an object as a watch or a list of the agent decodes it.
func decoded(t *testing.T, object runtime.Object) runtime.Object {
	t.Helper()
	object.GetObjectKind().SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kindOf(object)))
	scheme := watchedKinds()
	codec := protobuf.NewSerializer(scheme, scheme)
	data, err := runtime.Encode(codec, object)
	require.NoError(t, err)
	slim, err := runtime.Decode(codec, data)
	require.NoError(t, err)
	return slim
}

func kindOf(object runtime.Object) string {
	if _, list := object.(*corev1.PodList); list {
		return "PodList"
	}
	return "Pod"
}

// randomPods returns pods with any fields set, and often to what is read.
func randomPods(t *testing.T, n int) []corev1.Pod {
	t.Helper()
	fill := randfill.NewWithSeed(rand.Int64()).NilChance(0.2).NumElements(0, 4).Funcs(
		func(p *corev1.ContainerRestartPolicy, c randfill.Continue) {
			*p = []corev1.ContainerRestartPolicy{"Always", "Never"}[c.Intn(2)]
		},
		func(p *corev1.Protocol, c randfill.Continue) {
			*p = []corev1.Protocol{"", "TCP", "UDP", "SCTP", "x"}[c.Intn(5)]
		},
		func(p *corev1.PodPhase, c randfill.Continue) {
			*p = []corev1.PodPhase{"", "Pending", "Running", "Succeeded", "Failed"}[c.Intn(5)]
		},
		func(ip *corev1.PodIP, c randfill.Continue) {
			ip.IP = []string{"10.0.0.1", "10.0.0.2", "fd00::1", "x"}[c.Intn(4)]
		},
	)
	pods := make([]corev1.Pod, n)
	for i := range pods {
		pod := &corev1.Pod{}
		fill.Fill(&pod.ObjectMeta)
		fill.Fill(&pod.Spec)
		fill.Fill(&pod.Status)
		pod.Spec.NodeName = fmt.Sprint("node-", rand.N(2))
		if rand.N(2) == 0 {
			pod.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "mirror"}
		}
		for j := range pod.Spec.Containers {
			for k := range pod.Spec.Containers[j].Ports {
				pod.Spec.Containers[j].Ports[k].ContainerPort = rand.N[int32](70000)
			}
		}
		// What protobuf can't tell from nothing comes to nothing.
		data, err := pod.Marshal()
		require.NoError(t, err)
		require.NoError(t, pods[i].Unmarshal(data))
	}
	return pods
}

// What is left out of a pod when it is decoded is nothing that is read.
func TestSlimPodsAreReadAsWholeOnes(t *testing.T) {
	var pods []corev1.Pod
	require.NoError(t, yaml.UnmarshalStrict([]byte(richPods), &pods))
	pods = append(pods, randomPods(t, 300)...)
	same := func(whole, slim *corev1.Pod) {
		t.Helper()
		for _, node := range []string{"node-0", "node-1"} {
			require.Equal(t, ParsePod(whole, node), ParsePod(slim, node))
		}
		require.Equal(t, whole.ResourceVersion, slim.ResourceVersion)
		require.Empty(t, slim.ManagedFields)
		require.Empty(t, slim.Spec.Volumes)
		require.Empty(t, slim.Status.Conditions)
	}
	list := decoded(t, &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: "more"}, Items: pods}).(*slimPodList)
	require.Equal(t, metav1.ListMeta{ResourceVersion: "7", Continue: "more"}, list.ListMeta)
	require.Len(t, list.Items, len(pods))
	for i := range pods {
		same(&pods[i], &decoded(t, &pods[i]).(*SlimPod).Pod)
		same(&pods[i], &list.Items[i])
	}
}

// Informers take the items of a list, and those of a watch.
func TestPodsOfAListAreKept(t *testing.T) {
	list := decoded(t, &corev1.PodList{Items: []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "b"}}}})
	items, err := meta.ExtractList(list)
	require.NoError(t, err)
	require.Len(t, items, 1)
	for _, object := range append(items, &SlimPod{*items[0].(*corev1.Pod)}) {
		result, err := transforms(t)["Pod"](object)
		require.NoError(t, err)
		require.IsType(t, &Kept[*policy.Pod]{}, result)
	}
}

func TestBrokenPodsAreRefused(t *testing.T) {
	data, err := (&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: corev1.PodSpec{NodeName: "y"}}).Marshal()
	require.NoError(t, err)
	for cut := 1; cut < len(data); cut++ {
		whole, slim := &corev1.Pod{}, &SlimPod{}
		if whole.Unmarshal(data[:cut]) != nil {
			require.Error(t, slim.Unmarshal(data[:cut]), "%d bytes", cut)
		}
	}
}
