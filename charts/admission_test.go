package charts_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/internal/apiservertest"
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

var admissionPolicies = []string{"moat-agent-events", "moat-agent-reports", "moat-operator-nodes", "moat-operator-policies"}

// removalPolicy is the chart's alone: nothing else makes what it is about.
const removalPolicy = "moat-removal"

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
	require.Contains(t, objects["ValidatingAdmissionPolicy/"+removalPolicy].text, "request.namespace == 'elsewhere'")
	require.NotContains(t, objects["ValidatingAdmissionPolicy/"+removalPolicy].text, "moat-system")
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
	require.Len(t, shared(installed), 14)
	require.ElementsMatch(t, shared(render(t, "--set", "uninstall.check=false")), shared(installed))
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
	requireForged(t, agent.Delete(t.Context(), other.DeepCopy()), message)
	require.True(t, apierrors.IsForbidden(agent.DeleteAllOf(t.Context(), report(""))), "RBAC")

	require.NoError(t, neighbour.Get(t.Context(), client.ObjectKeyFromObject(other), forged))
	require.Equal(t, other, forged, "untouched")
	require.NoError(t, agent.Delete(t.Context(), own), "once its node is clean")
}

// A token that the account has elsewhere than in an agent's pod reports nothing.
func TestATokenWithoutANodeReportsNothing(t *testing.T) {
	const message = "the token of this agent names no node: use the one that the kubelet mounts"
	stranger := apiservertest.ClientOf(t, server.UnboundAgent(t))
	requireForged(t, stranger.Create(t.Context(), report("node-unbound")), message)

	existing := report("node-bound")
	require.NoError(t, apiservertest.ClientOf(t, server.Agent(t, existing.Name)).Create(t.Context(), existing))
	requireForged(t, stranger.Status().Update(t.Context(), existing), message)
	requireForged(t, stranger.Delete(t.Context(), existing), message)
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

// Whether an agent is at work, the operator says: that agent may be frozen, or taken
// over. And the operator says nothing else of a node.
func TestAgentAndOperatorShareAReport(t *testing.T) {
	stored := report("node-shared")
	agent, operator := apiservertest.ClientOf(t, server.Agent(t, stored.Name)), apiservertest.ClientOf(t, server.Operator(t))
	merge := func(text string) error {
		return operator.Status().Patch(t.Context(), report(stored.Name), client.RawPatch(types.MergePatchType, []byte(text)))
	}
	const state, since = `{"status":{"agent":{"state":"NotReady","since":"2026-11-30T12:00:00Z"}}}`, "2026-11-30T12:00:00Z"
	require.NoError(t, agent.Create(t.Context(), stored))
	require.NoError(t, merge(state), "before the agent's first report")
	require.NoError(t, agent.Get(t.Context(), client.ObjectKeyFromObject(stored), stored))
	stored.Status.Backend = "iptables-nft"
	stored.Status.Policies = []v1alpha1.EnforcedPolicy{{UID: "a", Generation: 1}}
	stored.Status.Failures = []v1alpha1.PolicyFailure{{UID: "b", Reason: "RestoreFailed", Message: "no"}}
	stored.Status.Conditions = []metav1.Condition{{
		Type: "DataplaneSynced", Status: metav1.ConditionTrue, Reason: "Synced", LastTransitionTime: metav1.Now(),
	}}
	require.NoError(t, agent.Status().Update(t.Context(), stored))
	require.NoError(t, merge(`{"status":{"agent":{"state":"Missing","since":"`+since+`"}}}`))
	require.NoError(t, agent.Get(t.Context(), client.ObjectKeyFromObject(stored), stored))

	const agentsOwn = "status.agent is the operator's: an agent keeps it as it is"
	for name, forge := range map[string]func(*v1alpha1.NodeEnforcementStatus){
		"state":   func(s *v1alpha1.NodeEnforcementStatus) { s.Agent.State = v1alpha1.AgentReady },
		"since":   func(s *v1alpha1.NodeEnforcementStatus) { s.Agent.Since = metav1.Now() },
		"removed": func(s *v1alpha1.NodeEnforcementStatus) { s.Agent = nil },
	} {
		forged := stored.DeepCopy()
		forge(&forged.Status)
		requireForged(t, agent.Status().Update(t.Context(), forged), agentsOwn)
		require.NotEmpty(t, name)
	}
	const operatorsOwn = "the operator writes status.agent of a NodeEnforcement and nothing else"
	forgeries := map[string]string{
		"agent":   "", // its own
		"backend": `"iptables-legacy"`, "policies": `[{"uid":"a","generation":2}]`, "policyCount": `7`, "truncated": `true`,
		"nodeUID": `"another"`, "bootID": `"another"`, "pods": `["0ugkm3hg23dn0t9q"]`,
		"failures": `null`, "conditions": `[]`,
	}
	require.ElementsMatch(t, jsonFields(v1alpha1.NodeEnforcementStatus{}), slices.Collect(maps.Keys(forgeries)), "each field is forged once")
	for field, value := range forgeries {
		if value != "" {
			requireForged(t, merge(`{"status":{"`+field+`":`+value+`}}`), operatorsOwn)
		}
	}
	requireForged(t, server.Admin(t).Status().Patch(t.Context(), report(stored.Name), client.RawPatch(types.MergePatchType, []byte(state))),
		"a NodeEnforcement is written by the agent of its node alone")
	kept := report(stored.Name)
	require.NoError(t, agent.Get(t.Context(), client.ObjectKeyFromObject(stored), kept))
	require.Equal(t, stored.Status, kept.Status, "untouched")
}

// jsonFields lists the fields of a type as the API calls them.
func jsonFields(of any) []string {
	var names []string
	structure := reflect.TypeOf(of)
	for i := range structure.NumField() {
		name, _, _ := strings.Cut(structure.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// Of a Node the operator changes one taint. What else there is of a Node it may not
// touch, in any kind of patch; each field of the spec that this Kubernetes has is tried.
func TestTheOperatorChangesOneTaintOfANode(t *testing.T) {
	admin, operator := server.Admin(t), apiservertest.ClientOf(t, server.Operator(t))
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node-taints", Labels: map[string]string{"disk": "ssd"}, Annotations: map[string]string{"a": "b"}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: "own", Value: "1", Effect: corev1.TaintEffectNoExecute}}},
	}
	require.NoError(t, admin.Create(t.Context(), node))
	t.Cleanup(func() { require.NoError(t, admin.Delete(context.Background(), node)) })
	patch := func(kind types.PatchType, text string) error {
		return operator.Patch(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node.Name}}, client.RawPatch(kind, []byte(text)))
	}
	taint := func(text string) error {
		return patch(types.JSONPatchType, `[{"op":"add","path":"/spec/taints/-","value":`+text+`}]`)
	}
	requireRefused := func(err error, message string) {
		t.Helper()
		requireDenied(t, err, "moat-operator-nodes", message)
	}
	const absent = v1alpha1.AgentAbsentTaint
	require.NoError(t, taint(`{"key":"`+absent+`","effect":"NoSchedule"}`))
	others := len(node.Spec.Taints) // a new Node is also tainted as not ready
	require.NoError(t, patch(types.JSONPatchType, fmt.Sprintf(`[{"op":"test","path":"/spec/taints/%[1]d/key","value":"%[2]s"},
		{"op":"remove","path":"/spec/taints/%[1]d"}]`, others, absent)))
	require.NoError(t, admin.Get(t.Context(), client.ObjectKeyFromObject(node), node))
	require.Len(t, node.Spec.Taints, others, "put and taken away")

	const evicts, foreign, nothing = "the taint " + absent + " has the effect NoSchedule and no value",
		"Moat's operator leaves the taints of others as they are", "Moat's operator changes of a Node its taint " + absent + " and nothing else"
	requireRefused(taint(`{"key":"`+absent+`","effect":"NoExecute"}`), evicts)
	requireRefused(taint(`{"key":"`+absent+`","effect":"NoSchedule","value":"1"}`), evicts)
	requireRefused(taint(`{"key":"another","effect":"NoSchedule"}`), foreign)
	requireRefused(patch(types.MergePatchType, `{"spec":{"taints":[]}}`), foreign)
	requireRefused(patch(types.MergePatchType, `{"spec":{"taints":[{"key":"own","value":"2","effect":"NoExecute"}]}}`), foreign)
	for _, text := range []string{
		`{"labels":{"disk":"hdd"}}`, `{"labels":null}`, `{"annotations":{"a":"c"}}`, `{"finalizers":["example.com/stay"]}`,
		`{"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"a","uid":"1"}]}`,
	} {
		requireRefused(patch(types.MergePatchType, `{"metadata":`+text+`}`), nothing)
	}
	// The API server itself keeps some of these as they are once they are set.
	changes := map[string]string{
		"taints":  "", // as above
		"podCIDR": `{"podCIDR":"10.1.0.0/24","podCIDRs":["10.1.0.0/24"]}`, "podCIDRs": `{"podCIDR":"10.1.0.0/24","podCIDRs":["10.1.0.0/24"]}`,
		"providerID": `{"providerID":"cloud://1"}`, "unschedulable": `{"unschedulable":true}`, "externalID": `{"externalID":"1"}`,
		"configSource":        `{"configSource":{"configMap":{"namespace":"a","name":"b","kubeletConfigKey":"c"}}}`,
		"podPreemptionPolicy": `{"podPreemptionPolicy":{"disableResizePreemption":["a"]}}`,
	}
	require.ElementsMatch(t, jsonFields(corev1.NodeSpec{}), slices.Collect(maps.Keys(changes)),
		"this Kubernetes has another field of a Node's spec: name it in config/admission/operator_nodes.yaml")
	for field, text := range changes {
		if text == "" {
			continue
		}
		if err := patch(types.MergePatchType, `{"spec":`+text+`}`); err == nil {
			stored := &corev1.Node{}
			require.NoError(t, admin.Get(t.Context(), client.ObjectKeyFromObject(node), stored))
			require.Equal(t, node.Spec, stored.Spec, "%s may only be accepted where the API server drops it", field)
		}
	}
	requireRefused(patch(types.MergePatchType, `{"spec":{"providerID":"cloud://1"}}`), nothing)
	requireRefused(patch(types.MergePatchType, `{"spec":{"unschedulable":true}}`), nothing)
	requireRefused(patch(types.MergePatchType, `{"spec":{"podCIDR":"10.1.0.0/24","podCIDRs":["10.1.0.0/24"]}}`), nothing)
	require.True(t, apierrors.IsForbidden(operator.Delete(t.Context(), node.DeepCopy())), "RBAC")
	require.True(t, apierrors.IsForbidden(operator.Status().Patch(t.Context(), node.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"status":{"phase":"a"}}`)))), "RBAC")
	stored := &corev1.Node{}
	require.NoError(t, admin.Get(t.Context(), client.ObjectKeyFromObject(node), stored))
	require.Equal(t, node.Spec, stored.Spec, "untouched")

	stored.Labels["disk"] = "hdd"
	require.NoError(t, admin.Update(t.Context(), stored), "others than the operator aren't asked")
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
