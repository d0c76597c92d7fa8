package localcluster

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTypedIsWhatAUserTypes(t *testing.T) {
	require.Equal(t, "kubectl label pod busybox role=frontend", Typed([]string{"kubectl", "label", "pod", "busybox", "role=frontend"}))
	require.Equal(t, "hack/cluster.sh exec world -- ping 10.244.1.4", Typed([]string{"exec", "world", "--", "ping", "10.244.1.4"}))
	require.Equal(t, `kubectl patch -p '[{"op": "remove"}]'`, Typed([]string{"kubectl", "patch", "-p", `[{"op": "remove"}]`}))
}

func TestCommandsOfTheClusterRunInItsNetwork(t *testing.T) {
	for _, own := range []string{"kubectl", "helm", "exec", "up", "load-image"} {
		require.Equal(t, []string{Program, own, "x"}, Command(t.Context(), []string{own, "x"}).Args)
	}
	require.Equal(t, []string{"hack/image/build.sh", "dev"}, Command(t.Context(), []string{"hack/image/build.sh", "dev"}).Args)
}

func TestTracesAreTheLinesAboutMoat(t *testing.T) {
	require.Equal(t, ":MOAT-INGRESS - [0:0]\ncreate moat-4-pods hash:ip\n",
		Traces("*mangle\n:KUBE-PROXY - [0:0]\n:MOAT-INGRESS - [0:0]\nCOMMIT\ncreate moat-4-pods hash:ip\ncreate other hash:ip\n"))
	require.Empty(t, Traces("*mangle\nCOMMIT\n"))
}
