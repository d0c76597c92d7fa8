package charts_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

func TestWrongValuesAreRefused(t *testing.T) {
	for _, test := range []struct{ set, wantError string }{
		{`agents={}`, "additional properties 'agents' not allowed"},

		{`image.repository="Example.com/moat:1"`, "at '/image/repository': 'Example.com/moat:1' does not match pattern"},
		{`image.repository=""`, "at '/image/repository'"},
		{`image.tag="a tag"`, "at '/image/tag': 'a tag' does not match pattern"},
		{`image.tag=1`, "at '/image/tag': got number, want string"},
		{`image.digest="sha256:12"`, "at '/image/digest': 'sha256:12' does not match pattern"},
		{`image.pullPolicy="always"`, "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'"},
		{`image.pullSecrets=[1]`, "at '/image/pullSecrets/0'"},
		{`imagePullSecrets="registry"`, "at '/imagePullSecrets': got string, want array"},
		{`global.imageRegistry="https://example.com"`, "at '/global/imageRegistry': 'https://example.com' does not match pattern"},
		{`global.imagePullSecrets=[{"secret":"a"}]`, "at '/global/imagePullSecrets"},
		{`enabled="yes"`, "at '/enabled': got string, want boolean"},
		{`commonLabels={"a":"b c"}`, "at '/commonLabels/a': 'b c' does not match pattern"},
		{`image.pullSecrets=[{}]`, "at '/image/pullSecrets/0': missing property 'name'"},
		{`image.pullSecrets=[{"name":"a b"}]`, "at '/image/pullSecrets/0/name': 'a b' does not match pattern"},
		{`image.name="moat"`, "at '/image': additional properties 'name' not allowed"},

		{`logLevel="verbose"`, "at '/logLevel': value must be one of 'info', 'debug'"},
		{`logFormat="yaml"`, "at '/logFormat': value must be one of 'text', 'json'"},
		{`revisionHistoryLimit=-1`, "at '/revisionHistoryLimit': minimum: got -1, want 0"},
		{`reporting.networkPolicies="Some"`, "at '/reporting/networkPolicies': value must be one of 'All', 'Generated', 'None'"},
		{`reporting.policies="All"`, "at '/reporting': additional properties 'policies' not allowed"},
		{`crds.enabled="yes"`, "at '/crds/enabled': got string, want boolean"},
		{`crds.install=true`, "at '/crds': additional properties 'install' not allowed"},
		{`rbac.aggregateClusterRoles="view"`, "at '/rbac/aggregateClusterRoles': got string, want boolean"},
		{`rbac.create=false`, "at '/rbac': additional properties 'create' not allowed"},

		{`agentAbsence.taint="no"`, "at '/agentAbsence/taint': got string, want boolean"},
		{`admissionPolicies=false`, "at '/admissionPolicies': got boolean, want object"},
		{`flowControl.enabled="no"`, "at '/flowControl/enabled': got string, want boolean"},
		{`resourceQuota.pods=0`, "at '/resourceQuota/pods': minimum: got 0, want 1"},
		{`resourceQuota.pods="10k"`, "at '/resourceQuota/pods': got string, want integer"},

		{`uninstall.timeout=60`, "uninstall.timeout is gone since 0.3.0: the API server itself looks"},
		{`uninstall.cleanup=false`, "uninstall.cleanup is gone since 0.3.0: agents clean their nodes themselves"},
		{`uninstall.clean=false`, "at '/uninstall': additional properties 'clean' not allowed"},
		{`operator.replicas="two"`, "at '/operator/replicas': got string, want integer"},
		{`operator.replicas=-1`, "at '/operator/replicas': minimum: got -1, want 0"},
		{`operator.replicas=11`, "at '/operator/replicas': maximum: got 11, want 10"},
		{`operator.priorityClassName="High"`, "at '/operator/priorityClassName': 'High' does not match pattern"},
		{`operator.podAnnotations={"a":true}`, "at '/operator/podAnnotations/a': got boolean, want string"},
		{`operator.podLabels={"a":"b c"}`, "at '/operator/podLabels/a': 'b c' does not match pattern"},
		{`operator.podLabels={"a b":"c"}`, "at '/operator/podLabels': additional properties 'a b' not allowed"},
		{`operator.resources={"limit":{}}`, "at '/operator/resources': additional properties 'limit' not allowed"},
		{`operator.resources={"limits":{"memory":"1 GB"}}`, "at '/operator/resources/limits/memory'"},
		{`operator.nodeSelector={"a":1}`, "at '/operator/nodeSelector/a': got number, want string"},
		{`operator.tolerations={"operator":"Exists"}`, "at '/operator/tolerations': got object, want array"},
		{`operator.affinity={"nodeAfinity":{}}`, "at '/operator/affinity': additional properties 'nodeAfinity' not allowed"},
		{`operator.ports.metrics=80`, "at '/operator/ports/metrics': minimum: got 80, want 1,024"},
		{`operator.ports.health=70000`, "at '/operator/ports/health': maximum: got 70,000, want 65,535"},
		{`operator.ports.http=8082`, "at '/operator/ports': additional properties 'http' not allowed"},
		{`operator.extraArgs="--a"`, "at '/operator/extraArgs': got string, want array"},
		{`operator.extraArgs=["a"]`, "at '/operator/extraArgs/0': 'a' does not match pattern"},
		{`operator.extraArgs=["--pprof-address","127.0.0.1:6060"]`, "at '/operator/extraArgs/1'"},
		{`operator.extraEnv={"A":"b"}`, "at '/operator/extraEnv': got object, want array"},
		{`operator.extraEnv=[{"name":"A","value":1}]`, "at '/operator/extraEnv/0/value': got number, want string"},
		{`operator.extraEnv=[{"name":"A","value":"b","valueFrom":{"fieldRef":{"fieldPath":"status.hostIP"}}}]`, "at '/operator/extraEnv/0'"},
		{`operator.serviceAccount.name="a"`, "at '/operator/serviceAccount': additional properties 'name' not allowed"},
		{`operator.image="moat"`, "at '/operator': additional properties 'image' not allowed"},

		{`agent.iptableBackend="nft"`, "at '/agent': additional properties 'iptableBackend' not allowed"},
		{`agent.iptablesBackend="ebtables"`, "at '/agent/iptablesBackend': value must be one of 'auto', 'nft', 'legacy'"},
		{`agent.podStartGuard="off"`, "at '/agent/podStartGuard': value must be one of 'Auto', 'Always', 'Off'"},
		{`agent.antiSpoofing="drop"`, "at '/agent/antiSpoofing': value must be one of 'Off', 'Count', 'Drop'"},
		{`agent.budgets.mode="Off"`, "at '/agent/budgets/mode': value must be one of '', 'Enforce', 'Report'"},
		{`agent.budgets.policy={"sets":40001}`, "at '/agent/budgets/policy/sets': maximum: got 40,001, want 40,000"},
		{`agent.budgets.node={"memory":1}`, "at '/agent/budgets/node': additional properties 'memory' not allowed"},
		{`agent.nriDir="nri"`, "at '/agent/nriDir': 'nri' does not match pattern"},
		{`agent.priorityClassName=1`, "at '/agent/priorityClassName': got number, want string"},
		{`agent.podAnnotations=["a"]`, "at '/agent/podAnnotations': got array, want object"},
		{`agent.podLabels={"a":"-"}`, "at '/agent/podLabels/a': '-' does not match pattern"},
		{`agent.resources={"requests":{"cpu":-1}}`, "at '/agent/resources/requests/cpu'"},
		{`agent.nodeSelector="linux"`, "at '/agent/nodeSelector': got string, want object"},
		{`agent.tolerations=[{"operator":"Everything"}]`, "at '/agent/tolerations/0/operator': value must be one of 'Exists', 'Equal'"},
		{`agent.affinity=[]`, "at '/agent/affinity': got array, want object"},
		{`agent.maxUnavailable="0%"`, "at '/agent/maxUnavailable'"},
		{`agent.excludedNodes=["a"]`, "at '/agent/excludedNodes': got array, want object"},
		{`agent.excludedNodes={"type":[]}`, "at '/agent/excludedNodes/type': minItems: got 0, want 1"},
		{`agent.excludedNodes={"type":"virtual-kubelet"}`, "at '/agent/excludedNodes/type': got string, want array"},
		{`agent.updateStrategy="OnDelete"`, "at '/agent/updateStrategy': got string, want object"},
		{`agent.updateStrategy.type="Recreate"`, "at '/agent/updateStrategy/type': value must be one of 'RollingUpdate', 'OnDelete'"},
		{`agent.updateStrategy.rollingUpdate.maxUnavailable="0%"`, "at '/agent/updateStrategy/rollingUpdate/maxUnavailable'"},
		{`agent.updateStrategy.rollingUpdate.maxUnavailable=0`, "at '/agent/updateStrategy/rollingUpdate/maxUnavailable'"},
		{`agent.updateStrategy.rollingUpdate.maxSurge=1`, "at '/agent/updateStrategy/rollingUpdate': additional properties 'maxSurge' not allowed"},
		{`agent.minReadySeconds=-1`, "at '/agent/minReadySeconds'"},
		{`agent.terminationGracePeriodSeconds=30`, "at '/agent/terminationGracePeriodSeconds': minimum: got 30, want 60"},
		{`agent.ports.health=443`, "at '/agent/ports/health': minimum: got 443, want 1,024"},
		{`agent.extraArgs=[1]`, "at '/agent/extraArgs/0': got number, want string"},
		{`agent.extraEnv=[{"value":"a"}]`, "at '/agent/extraEnv/0': missing property 'name'"},
		{`agent.extraEnv=[{"name":"A","valueFrom":{"fileRef":{}}}]`, "at '/agent/extraEnv/0/valueFrom': additional properties 'fileRef' not allowed"},
		{`agent.seLinuxOptions={"typ":"spc_t"}`, "at '/agent/seLinuxOptions': additional properties 'typ' not allowed"},

		{`networkPolicy.enabled="on"`, "at '/networkPolicy/enabled': got string, want boolean"},
		{`networkPolicy.metricsFrom=[{}]`, "at '/networkPolicy/metricsFrom/0': minProperties: got 0, want 1"},
		{`networkPolicy.metricsFrom=[{"podSelectors":{}}]`, "at '/networkPolicy/metricsFrom/0': additional properties 'podSelectors' not allowed"},
		{`networkPolicy.metricsFrom=[{"ipBlock":{"cidr":"10.0.0.1"}}]`, "at '/networkPolicy/metricsFrom/0/ipBlock/cidr': '10.0.0.1' does not match pattern"},
		{`networkPolicy.egress=[]`, "at '/networkPolicy': additional properties 'egress' not allowed"},

		{`monitoring.serviceMonitor={}`, "at '/monitoring': additional properties 'serviceMonitor' not allowed"},
		{`monitoring.podMonitor.enabled=1`, "at '/monitoring/podMonitor/enabled': got number, want boolean"},
		{`monitoring.podMonitor.interval="often"`, "at '/monitoring/podMonitor/interval': 'often' does not match pattern"},
		{`monitoring.podMonitor.labels={"a":null,"b":{}}`, "at '/monitoring/podMonitor/labels/b': got object, want string"},
		{`monitoring.prometheusRule.enabled="true"`, "at '/monitoring/prometheusRule/enabled': got string, want boolean"},
		{`monitoring.prometheusRule.labels=[]`, "at '/monitoring/prometheusRule/labels': got array, want object"},
	} {
		t.Run(test.set, func(t *testing.T) {
			_, err := template(t, "--set-json", test.set)
			require.ErrorContains(t, err, test.wantError)
		})
	}
}

func TestTooOldKubernetesIsRefused(t *testing.T) {
	_, err := template(t, "--kube-version", "1.31.9")
	require.ErrorContains(t, err, "chart requires kubeVersion")
}

// What the schema can't see together is refused with what to do about it.
func TestWrongCombinationsAreRefused(t *testing.T) {
	for _, test := range []struct{ set, wantError string }{
		{`enabled=false`, "enabled: false removes nothing: it is for a parent chart, whose dependency names it (condition: moat.enabled)"},
		{`agent.maxUnavailable="20%",agent.updateStrategy.rollingUpdate.maxUnavailable="5%"`,
			"agent.maxUnavailable is 20% and agent.updateStrategy.rollingUpdate.maxUnavailable 5%: they are one value, of which the first is the old name. Leave it out"},
		{`admissionPolicies.enabled=false`, "nothing would keep the operator to its own taint. Set agentAbsence.taint=false, too"},
		{`agent.ports.metrics=9471`, "agent.ports: metrics and health are both 9471: give each a port of its own"},
		{`operator.ports={"metrics":9000,"health":9000}`, "operator.ports: metrics and health are both 9000"},
		{`agent.extraArgs=["--log-level=debug"]`, "agent.extraArgs: --log-level is there already"},
		{`agent.extraArgs=["--health-address=:1"]`, "agent.extraArgs: --health-address is there already"},
		{`operator.extraArgs=["--leader-elect=false"]`, "operator.extraArgs: --leader-elect is there already"},
		{`operator.extraArgs=["--pprof-address=a","--pprof-address=b"]`, "operator.extraArgs: --pprof-address is there already"},
		{`agent.extraEnv=[{"name":"NODE_NAME","value":"a"}]`, "agent.extraEnv: NODE_NAME is there already"},
		{`agent.extraEnv=[{"name":"MEMORY_LIMIT","value":"1"}]`, "agent.extraEnv: MEMORY_LIMIT is there already"},
		{`operator.extraEnv=[{"name":"A","value":"1"},{"name":"A","value":"2"}]`, "operator.extraEnv: A is there already"},
	} {
		t.Run(test.set, func(t *testing.T) {
			_, err := template(t, "--set-json", test.set)
			require.ErrorContains(t, err, test.wantError)
		})
	}
}

// Where nothing but the user sets a variable, it is the user's.
func TestWithoutALimitTheVariableIsFree(t *testing.T) {
	agent := agentOf(t, render(t, "--set-json", `agent.resources={"limits":null},agent.extraEnv=[{"name":"GOMEMLIMIT","value":"300MiB"}]`))
	env := agent.Spec.Template.Spec.Containers[0].Env
	require.Contains(t, env, corev1.EnvVar{Name: "GOMEMLIMIT", Value: "300MiB"})
	require.NotContains(t, names(env), "MEMORY_LIMIT")
}

// What Kubernetes takes, the schema takes.
func TestKubernetesOwnFormsAreAccepted(t *testing.T) {
	for _, set := range []string{
		`agent.resources={"limits":{"memory":"1e9","cpu":"0.5","ephemeral-storage":"1.5Gi"}}`,
		`agent.resources={"limits":{"memory":512000000,"cpu":".5"},"requests":{"cpu":"100000u"}}`,
		`agent.tolerations=[{"key":"a","operator":"Gt","value":"5","effect":"NoSchedule"}]`,
		`operator.tolerations=[{"key":"a","operator":"Lt","value":"5","effect":"NoSchedule"}]`,
	} {
		_, err := template(t, "--set-json", set)
		require.NoError(t, err, set)
	}
}

func names(env []corev1.EnvVar) []string {
	var names []string
	for i := range env {
		names = append(names, env[i].Name)
	}
	return names
}
