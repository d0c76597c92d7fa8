package charts_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/apiservertest"
)

// server has the policies of config/admission in force.
var server = apiservertest.Server{Admission: true}

// releases is an API server into which Helm installs. No controller acts there: the
// tests play the controller of Jobs, and no pod ever starts.
var releases apiservertest.Server

func TestMain(m *testing.M) {
	code := server.Run(m)
	releases.Stop()
	os.Exit(code)
}

var admissionPolicies = []string{"moat-agent-reports", "moat-operator-policies"}

func TestAdmissionPoliciesAreThoseOfConfig(t *testing.T) {
	objects := render(t)
	installed := kustomize(t, "default")
	for _, name := range admissionPolicies {
		key := "ValidatingAdmissionPolicy/" + name
		require.Equal(t, decode[admissionv1.ValidatingAdmissionPolicy](t, installed, key).Spec,
			decode[admissionv1.ValidatingAdmissionPolicy](t, objects, key).Spec)
		binding := decode[admissionv1.ValidatingAdmissionPolicyBinding](t, objects, "ValidatingAdmissionPolicyBinding/"+name)
		require.Equal(t, name, binding.Spec.PolicyName)
		require.Equal(t, []admissionv1.ValidationAction{admissionv1.Deny}, binding.Spec.ValidationActions)
	}
}

// The policies know the service accounts by the namespace of the release.
func TestAdmissionPoliciesFollowTheNamespace(t *testing.T) {
	objects := render(t, "--namespace", "elsewhere")
	for _, name := range admissionPolicies {
		text := objects["ValidatingAdmissionPolicy/"+name].text
		require.Contains(t, text, "system:serviceaccount:elsewhere:moat-")
		require.NotContains(t, text, "moat-system")
	}
}

// Who installs with kustomize gets the same kinds, rights and admission policies.
func TestKustomizeInstallsWhatTheChartInstalls(t *testing.T) {
	shared := func(objects map[string]object) []string {
		var keys []string
		for key := range objects {
			switch kind, _, _ := strings.Cut(key, "/"); kind {
			case "CustomResourceDefinition", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "PriorityLevelConfiguration", "FlowSchema":
				keys = append(keys, key)
			}
		}
		return keys
	}
	installed := kustomize(t, "default")
	maps.Copy(installed, kustomize(t, "crd"))
	require.Len(t, shared(installed), 10)
	require.ElementsMatch(t, shared(render(t)), shared(installed))
	for _, key := range shared(installed) {
		require.NotContains(t, installed[key].text, "\n  namespace:", "%s belongs to no namespace", key)
	}
}

// kustomize builds a folder of config with kubectl.
func kustomize(t *testing.T, folder string) map[string]object {
	t.Helper()
	kubectl := filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl")
	if testing.Short() {
		t.Skip("short mode: config is not built")
	}
	out, err := exec.Command(kubectl, "kustomize", filepath.Join("..", "config", folder)).Output()
	require.NoError(t, err)
	return objectsOf(t, string(out))
}

func report(node string) *v1alpha1.NodeEnforcement {
	return &v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{Name: node}}
}

// requireDenied tells the policies' refusals from those of RBAC and of validation.
func requireDenied(t *testing.T, err error, policy, message string) {
	t.Helper()
	require.True(t, apierrors.IsInvalid(err), "%v", err)
	require.ErrorContains(t, err, "ValidatingAdmissionPolicy '"+policy+"'")
	require.ErrorContains(t, err, "denied request: "+message)
}

func requireForged(t *testing.T, err error, message string) {
	t.Helper()
	requireDenied(t, err, "moat-agent-reports", message)
}

// An agent that was taken over can lie about its own node, and about no other.
func TestAnAgentReportsForItsOwnNodeAlone(t *testing.T) {
	own, other := report("node-own"), report("node-other")
	agent := apiservertest.ClientOf(t, server.Agent(t, own.Name))
	neighbour := apiservertest.ClientOf(t, server.Agent(t, other.Name))

	require.NoError(t, agent.Create(t.Context(), own))
	own.Status.Backend = "iptables-nft"
	require.NoError(t, agent.Status().Update(t.Context(), own))
	own.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: own.Name, UID: "1"}}
	require.NoError(t, agent.Update(t.Context(), own))

	const message = "the agent of node node-own may write the NodeEnforcement of its own node alone, not node-other"
	requireForged(t, agent.Create(t.Context(), other.DeepCopy()), message)
	require.NoError(t, neighbour.Create(t.Context(), other))

	forged := other.DeepCopy()
	forged.Status.PolicyCount = 1
	requireForged(t, agent.Status().Update(t.Context(), forged), message)
	forged.OwnerReferences = own.OwnerReferences
	requireForged(t, agent.Update(t.Context(), forged), message)
	require.True(t, apierrors.IsForbidden(agent.Delete(t.Context(), other.DeepCopy())), "RBAC")

	require.NoError(t, neighbour.Get(t.Context(), client.ObjectKeyFromObject(other), forged))
	require.Equal(t, other, forged, "untouched")
}

// A token that the account has elsewhere than in an agent's pod reports nothing.
func TestATokenWithoutANodeReportsNothing(t *testing.T) {
	const message = "the token of this agent names no node: use the one that the kubelet mounts"
	stranger := apiservertest.ClientOf(t, server.UnboundAgent(t))
	requireForged(t, stranger.Create(t.Context(), report("node-unbound")), message)

	existing := report("node-bound")
	require.NoError(t, apiservertest.ClientOf(t, server.Agent(t, existing.Name)).Create(t.Context(), existing))
	requireForged(t, stranger.Status().Update(t.Context(), existing), message)
}

// Not even who may do all writes a report; metadata and deletion are left to RBAC.
func TestOnlyAgentsReport(t *testing.T) {
	const message = "a NodeEnforcement is written by the agent of its node alone (system:serviceaccount:moat-system:moat-agent), not by "
	requireForged(t, server.Admin(t).Create(t.Context(), report("node-people")), message)

	existing := report("node-people")
	require.NoError(t, apiservertest.ClientOf(t, server.Agent(t, existing.Name)).Create(t.Context(), existing))
	existing.Status.PolicyCount = 1
	requireForged(t, server.Admin(t).Status().Update(t.Context(), existing), message)

	collector := apiservertest.ClientOf(t, server.User(t, "system:serviceaccount:kube-system:generic-garbage-collector", "system:authenticated"))
	existing.Finalizers = []string{"example.com/foreground"}
	require.NoError(t, collector.Update(t.Context(), existing))
	require.Zero(t, existing.Status.PolicyCount, "an update of the object doesn't reach its status")
	existing.Finalizers = nil
	require.NoError(t, server.Admin(t).Update(t.Context(), existing))
	require.NoError(t, collector.Delete(t.Context(), existing))
}

// networkPolicy returns a policy with some owners.
func networkPolicy(namespace, name string, owners ...metav1.OwnerReference) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, OwnerReferences: owners},
		Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}},
	}
}

func owner(apiVersion, kind, name string, controller bool) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: name, UID: "1", Controller: &controller}
}

const (
	notItsOwn = " is controlled by no AppIsolation: Moat may neither change nor delete it"
	noOwner   = "Moat may write a NetworkPolicy only with a controller reference to the AppIsolation that it is made for"
)

// An operator that was taken over can't touch what people wrote.
func TestTheOperatorTouchesItsOwnPoliciesAlone(t *testing.T) {
	admin, operator, namespace := server.Admin(t), apiservertest.ClientOf(t, server.Operator(t)), server.Namespace(t)
	requireRefused := func(err error, message string) {
		t.Helper()
		requireDenied(t, err, "moat-operator-policies", message)
	}
	group := v1alpha1.GroupVersion.String()
	patch := func(text string) client.Patch { return client.RawPatch(types.MergePatchType, []byte(text)) }
	const open = `{"spec":{"ingress":[{}]}}`

	own := networkPolicy(namespace, "appiso-db", owner(group, "AppIsolation", "db", true))
	require.NoError(t, operator.Create(t.Context(), own))
	require.NoError(t, operator.Patch(t.Context(), own, patch(open)))
	requireRefused(operator.Patch(t.Context(), own.DeepCopy(), patch(`{"metadata":{"ownerReferences":null}}`)), noOwner)
	require.NoError(t, operator.Delete(t.Context(), own))

	for name, owners := range map[string][]metav1.OwnerReference{
		"appiso-nobody":     nil,
		"appiso-others":     {owner("apps/v1", "Deployment", "others", true)},
		"appiso-group":      {owner("example.com/v1", "AppIsolation", "group", true)},
		"appiso-bystander":  {owner(group, "AppIsolation", "bystander", false)},
		"default-deny":      {owner(group, "AppIsolation", "db", true)},
		"appiso-other-name": {owner(group, "AppIsolation", "db", true)},
	} {
		requireRefused(operator.Create(t.Context(), networkPolicy(namespace, name, owners...)), noOwner)
	}

	byHand := networkPolicy(namespace, "appiso-by-hand")
	require.NoError(t, admin.Create(t.Context(), byHand))
	message := "NetworkPolicy " + namespace + "/appiso-by-hand" + notItsOwn
	requireRefused(operator.Patch(t.Context(), byHand.DeepCopy(), patch(open)), message)
	requireRefused(operator.Patch(t.Context(), byHand.DeepCopy(), patch(
		`{"metadata":{"ownerReferences":[{"apiVersion":"`+group+`","kind":"AppIsolation","name":"by-hand","uid":"1","controller":true}]}}`)), message)
	requireRefused(operator.Delete(t.Context(), byHand.DeepCopy()), message)
	stored := &networkingv1.NetworkPolicy{}
	require.NoError(t, admin.Get(t.Context(), client.ObjectKeyFromObject(byHand), stored))
	require.Equal(t, byHand.Generation, stored.Generation, "untouched")
}

// Others than the operator aren't asked.
func TestPeopleAndGarbageCollectionTouchAnyPolicy(t *testing.T) {
	admin, namespace := server.Admin(t), server.Namespace(t)
	collector := apiservertest.ClientOf(t, server.User(t, "system:serviceaccount:kube-system:generic-garbage-collector", "system:authenticated"))
	byHand := networkPolicy(namespace, "by-hand")
	require.NoError(t, admin.Create(t.Context(), byHand))
	byHand.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
	require.NoError(t, admin.Update(t.Context(), byHand))
	require.NoError(t, collector.Delete(t.Context(), byHand))
	generated := networkPolicy(namespace, "appiso-db", owner(v1alpha1.GroupVersion.String(), "AppIsolation", "db", true))
	require.NoError(t, admin.Create(t.Context(), generated))
	require.NoError(t, collector.Delete(t.Context(), generated))
}
