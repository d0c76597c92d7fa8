package policy_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/dataplane/policy"
)

// A pod may forge packets where any of its containers has NET_RAW: by default, unless it is
// dropped and not added again.
func TestRawSockets(t *testing.T) {
	for spec, want := range map[string]bool{
		`{containers: [{}]}`: true,
		`{containers: [{securityContext: {runAsNonRoot: true}}]}`:                                                                              true,
		`{containers: [{securityContext: {capabilities: {drop: [ALL]}}}]}`:                                                                     false,
		`{containers: [{securityContext: {capabilities: {drop: [NET_RAW]}}}]}`:                                                                 false,
		`{containers: [{securityContext: {capabilities: {drop: [CAP_NET_RAW]}}}]}`:                                                             false,
		`{containers: [{securityContext: {capabilities: {drop: [NET_ADMIN]}}}]}`:                                                               true,
		`{containers: [{securityContext: {capabilities: {drop: [ALL], add: [NET_RAW]}}}]}`:                                                     true,
		`{containers: [{securityContext: {capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}}]}`:                                            false,
		`{containers: [{securityContext: {privileged: true, capabilities: {drop: [ALL]}}}]}`:                                                   true,
		`{containers: [{securityContext: {capabilities: {drop: [ALL]}}}, {}]}`:                                                                 true,
		`{containers: [{securityContext: {capabilities: {drop: [ALL]}}}], initContainers: [{}]}`:                                               true,
		`{containers: [{securityContext: {capabilities: {drop: [ALL]}}}], ephemeralContainers: [{name: debug}]}`:                               true,
		`{hostNetwork: true, containers: [{}]}`:                                                                                                false,
		`{containers: [{securityContext: {capabilities: {drop: [ALL]}}}], initContainers: [{securityContext: {capabilities: {drop: [ALL]}}}]}`: false,
	} {
		pod := &corev1.Pod{}
		require.NoError(t, yaml.UnmarshalStrict([]byte("spec: "+spec), pod))
		require.Equal(t, want, policy.ParsePod(pod).RawSockets, spec)
	}
}
