//go:build linux

package kube

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestClientEnv(t *testing.T) {
	env := ClientEnv([]string{"HOME=/h", "KUBECONFIG=/users/own", "https_proxy=http://proxy", "HTTP_PROXY=x", "NO_PROXY=y"})
	require.Equal(t, []string{"KUBECONFIG=" + AdminKubeconfig, "HOME=/h", "NO_PROXY=y"}, env)
}
