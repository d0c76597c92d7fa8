package charts_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/rest"

	"github.com/moat-dev/moat/internal/apiservertest"
)

// right is a verb on a resource, in every namespace unless one is named.
type right struct{ verb, group, resource, namespace, name string }

// What docs/security.md says of the rights of each account, asked of the API server.
func TestRights(t *testing.T) {
	const moat, net, apps, rbac = "isolation.moat.dev", "networking.k8s.io", "apps", "rbac.authorization.k8s.io"
	for name, test := range map[string]struct {
		config      *rest.Config
		may, mayNot []right
	}{
		"agent": {
			config: server.Agent(t, "node-rights"),
			may: []right{
				{verb: "list", resource: "pods"}, {verb: "list", resource: "namespaces"}, {verb: "list", resource: "nodes"},
				{verb: "list", group: net, resource: "networkpolicies"},
				{verb: "update", group: moat, resource: "nodeenforcements/status"}, {verb: "delete", group: moat, resource: "nodeenforcements"},
				{verb: "create", group: "events.k8s.io", resource: "events"},
				{verb: "watch", resource: "configmaps", namespace: namespace, name: "moat-release"},
				{verb: "get", group: apps, resource: "daemonsets", namespace: namespace, name: "moat-agent"},
				{verb: "get", resource: "configmaps", namespace: namespace, name: "moat-budgets"},
			},
			mayNot: []right{
				{verb: "get", resource: "secrets"}, {verb: "list", resource: "configmaps"}, {verb: "create", resource: "pods/exec"},
				{verb: "list", resource: "configmaps", namespace: namespace}, {verb: "delete", resource: "configmaps", namespace: namespace, name: "moat-release"},
				{verb: "watch", group: apps, resource: "daemonsets", namespace: namespace}, {verb: "patch", group: apps, resource: "daemonsets", namespace: namespace, name: "moat-agent"},
				{verb: "patch", resource: "pods"}, {verb: "patch", resource: "nodes"},
				{verb: "create", group: net, resource: "networkpolicies"}, {verb: "delete", group: net, resource: "networkpolicies"},
				{verb: "list", group: moat, resource: "appisolations"}, {verb: "patch", group: moat, resource: "appisolations/status"},
				{verb: "list", group: moat, resource: "nodeenforcements"}, {verb: "deletecollection", group: moat, resource: "nodeenforcements"},
				{verb: "create", group: moat, resource: "policyenforcements"}, {verb: "update", group: moat, resource: "isolationconfigs"},
				{verb: "create", resource: "serviceaccounts/token"},
			},
		},
		"operator": {
			config: server.Operator(t),
			may: []right{
				{verb: "create", group: net, resource: "networkpolicies"}, {verb: "patch", group: net, resource: "networkpolicies"},
				{verb: "patch", group: moat, resource: "appisolations/status"},
				{verb: "update", group: "coordination.k8s.io", resource: "leases", namespace: namespace, name: "moat-operator"},
				{verb: "patch", resource: "nodes"}, {verb: "patch", group: moat, resource: "nodeenforcements/status"},
				{verb: "watch", resource: "configmaps", namespace: namespace, name: "moat-release"},
				{verb: "watch", group: apps, resource: "daemonsets", namespace: namespace, name: "moat-agent"},
				{verb: "watch", group: apps, resource: "deployments", namespace: namespace, name: "moat-operator"},
			},
			mayNot: []right{
				{verb: "get", resource: "secrets"}, {verb: "list", resource: "configmaps"}, {verb: "create", resource: "pods/exec"},
				{verb: "create", resource: "pods"}, {verb: "patch", resource: "pods"},
				{verb: "update", resource: "nodes"}, {verb: "delete", resource: "nodes"}, {verb: "patch", resource: "nodes/status"},
				{verb: "list", resource: "configmaps", namespace: namespace}, {verb: "patch", resource: "configmaps", namespace: namespace, name: "moat-release"},
				{verb: "patch", group: apps, resource: "daemonsets", namespace: namespace},
				{verb: "patch", group: apps, resource: "deployments", namespace: namespace},
				{verb: "patch", group: moat, resource: "appisolations"}, {verb: "delete", group: moat, resource: "appisolations"},
				{verb: "update", group: moat, resource: "isolationconfigs"}, {verb: "delete", group: moat, resource: "isolationconfigs"},
				{verb: "create", group: moat, resource: "nodeenforcements"}, {verb: "update", group: moat, resource: "nodeenforcements/status"},
				{verb: "delete", group: moat, resource: "nodeenforcements"},
				{verb: "deletecollection", group: net, resource: "networkpolicies"},
				{verb: "update", group: "coordination.k8s.io", resource: "leases", namespace: namespace, name: "another"},
				{verb: "create", group: "coordination.k8s.io", resource: "leases", namespace: "kube-system"},
				{verb: "create", resource: "serviceaccounts/token"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, verb := range []string{"escalate", "bind"} {
				test.mayNot = append(test.mayNot, right{verb: verb, group: rbac, resource: "clusterroles"})
			}
			test.mayNot = append(test.mayNot, right{verb: "impersonate", resource: "users"}, right{verb: "*", group: "*", resource: "*"})
			for _, r := range test.may {
				require.True(t, isAllowed(t, test.config, r), "%+v", r)
			}
			for _, r := range test.mayNot {
				require.False(t, isAllowed(t, test.config, r), "%+v", r)
			}
		})
	}
}

func isAllowed(t *testing.T, config *rest.Config, r right) bool {
	t.Helper()
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: r.verb, Group: r.group, Namespace: r.namespace, Name: r.name},
	}}
	review.Spec.ResourceAttributes.Resource, review.Spec.ResourceAttributes.Subresource, _ = strings.Cut(r.resource, "/")
	require.NoError(t, apiservertest.ClientOf(t, config).Create(t.Context(), review))
	return review.Status.Allowed
}
