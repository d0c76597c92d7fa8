package v1alpha1_test

import (
	"cmp"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// appIsolation returns an AppIsolation with the given spec, in YAML.
func appIsolation(t *testing.T, namespace, spec string) *unstructured.Unstructured {
	t.Helper()
	app := &unstructured.Unstructured{Object: map[string]any{}}
	app.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("AppIsolation"))
	app.SetNamespace(namespace)
	app.SetName("app")
	var parsed map[string]any
	require.NoError(t, yaml.UnmarshalStrict([]byte(spec), &parsed))
	app.Object["spec"] = parsed
	return app
}

// withPeer returns a spec whose one ingress rule has the given peer.
func withPeer(peer string) string {
	return fmt.Sprintf("{selector: {}, directions: [Ingress], ingress: [{name: r, from: [%s]}]}", peer)
}

// withPort returns a spec whose one egress rule has the given port, at the given
// peers, which are anyone where there are none.
func withPort(port string, peers ...string) string {
	to := cmp.Or(strings.Join(peers, ", "), "{entity: Anywhere}")
	return fmt.Sprintf("{selector: {}, directions: [Egress], egress: [{name: r, to: [%s], ports: [%s]}]}", to, port)
}

func withSelector(selector string) string {
	return fmt.Sprintf("{selector: %s, directions: [Ingress]}", selector)
}

const (
	peerField = "spec.ingress[0].from[0]"
	portField = "spec.egress[0].ports[0]"
)

// TestAccepted holds what must not be refused: the other side of each rule.
func TestAccepted(t *testing.T) {
	admin, namespace := server.Admin(t), server.Namespace(t)
	longLabel := strings.Repeat("a", 63)
	for name, spec := range map[string]string{
		"smallest":                   "{selector: {}, directions: [Ingress]}",
		"both directions, no rules":  "{selector: {}, directions: [Ingress, Egress], ingress: [], egress: []}",
		"mode":                       "{selector: {}, directions: [Ingress], mode: Disabled}",
		"label":                      withSelector("{matchLabels: {example.com/App_1.x: v-1_x.Y}}"),
		"empty label value":          withSelector("{matchLabels: {app: ''}}"),
		"longest label":              withSelector(fmt.Sprintf("{matchLabels: {%s/%s: %s}}", strings.Repeat("a.", 126)+"a", longLabel, longLabel)),
		"longest key in expression":  withSelector(fmt.Sprintf("{matchExpressions: [{key: %s/%s, operator: Exists}]}", strings.Repeat("a.", 126)+"a", longLabel)),
		"expressions":                withSelector("{matchExpressions: [{key: a, operator: In, values: [x, '']}, {key: b, operator: NotIn, values: [z]}, {key: example.com/c, operator: Exists}, {key: d, operator: DoesNotExist}]}"),
		"app":                        withPeer("{app: {}}"),
		"app of other namespaces":    withPeer("{app: {matchLabels: {a: b}, namespaces: {selector: {matchLabels: {p: q}}}}}"),
		"app of named namespaces":    withPeer("{app: {namespaces: {names: [kube-system, default]}}}"),
		"app of all namespaces":      withPeer("{app: {namespaces: {selector: {}}}}"),
		"entities":                   withPeer("{entity: Anywhere}, {entity: SameNamespace}, {entity: AllNamespaces}, {entity: Internet}, {entity: DNS}, {entity: KubeAPIServer}, {entity: Nodes}, {entity: IngressControllers}, {entity: Monitoring}"),
		"services":                   withPeer("{service: {name: redis}}, {service: {name: redis-2, namespace: 3rd}}"),
		"services and ports come in": "{selector: {}, directions: [Ingress], ingress: [{name: r, from: [{service: {name: redis}}, {entity: KubeAPIServer}], ports: [{port: 80}]}]}",
		"services and others":        "{selector: {}, directions: [Egress], egress: [{name: r, to: [{service: {name: redis}}, {entity: DNS}, {app: {}}], ports: []}]}",
		"ports beside entities":      withPort("{port: 80}", "{entity: Internet}, {entity: Nodes}, {entity: IngressControllers}, {entity: Monitoring}"),
		"no implicit DNS":            "{selector: {}, directions: [Egress], implicit: {dns: Deny}}",
		"range":                      withPeer("{cidr: {cidr: 172.17.0.0/16, except: [172.17.1.0/24, 172.17.2.3/32]}}"),
		"everything but":             withPeer("{cidr: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}"),
		"IPv6 range":                 withPeer("{cidr: {cidr: '2001:db8::/32', except: ['2001:db8:1::/48']}}"),
		"longest IPv6 range":         withPeer("{cidr: {cidr: '2001:0db8:1111:2222:3333:4444:5555:6666/128'}}"),
		"port":                       withPort("{port: 1}, {port: 65535, protocol: UDP}, {port: 80, protocol: SCTP}"),
		"port range":                 withPort("{port: 80, endPort: 80}, {port: 1, endPort: 65535}"),
		"port name":                  withPort("{port: http}, {port: a-b-c-d-e-f-g-h}, {port: 8080-tcp}"),
		"every port of one protocol": withPort("{protocol: UDP}"),
	} {
		t.Run(name, func(t *testing.T) {
			app := appIsolation(t, namespace, spec)
			require.NoError(t, admin.Create(t.Context(), app))
			require.NoError(t, admin.Delete(t.Context(), app))
		})
	}
}

// TestRefused names, for each kind of wrong input, the field and the fix that
// the user has to see.
func TestRefused(t *testing.T) {
	admin, namespace := server.Admin(t), server.Namespace(t)
	for name, refused := range map[string]struct {
		spec, field, fix string
	}{
		"no selector":       {"{directions: [Ingress]}", "spec.selector", "Required value"},
		"no directions":     {"{selector: {}}", "spec.directions", "Required value"},
		"empty directions":  {"{selector: {}, directions: []}", "spec.directions", "at least 1"},
		"unknown direction": {"{selector: {}, directions: [ingress]}", "spec.directions[0]", `supported values: "Ingress", "Egress"`},
		"direction twice":   {"{selector: {}, directions: [Ingress, Ingress]}", "spec.directions[1]", "Duplicate value"},
		"mode Audit":        {"{selector: {}, directions: [Ingress], mode: Audit}", "spec.mode", "Audit is reserved for a later version, and nothing would be in force: use Enforce, or Disabled to remove the policy"},
		"unknown mode":      {"{selector: {}, directions: [Ingress], mode: enforce}", "spec.mode", `supported values: "Enforce", "Disabled", "Audit"`},
		"unknown implicit":  {"{selector: {}, directions: [Egress], implicit: {dns: No}}", "spec.implicit.dns", `supported values: "Allow", "Deny"`},
		"ingress rule without the direction": {"{selector: {}, directions: [Egress], ingress: [{name: r, from: [{entity: Anywhere}]}]}",
			"spec.ingress", "'Ingress' in directions"},
		"egress rule without the direction": {"{selector: {}, directions: [Ingress], egress: [{name: r, to: [{entity: Anywhere}]}]}",
			"spec.egress", "'Egress' in directions"},
		"rule without a name": {"{selector: {}, directions: [Ingress], ingress: [{from: [{entity: Anywhere}]}]}", "spec.ingress[0].name", "Required value"},
		"rule name twice": {"{selector: {}, directions: [Ingress], ingress: [{name: r, from: [{entity: Anywhere}]}, {name: r, from: [{entity: Anywhere}]}]}",
			"spec.ingress[1]", "Duplicate value"},
		"bad rule name":      {"{selector: {}, directions: [Ingress], ingress: [{name: My Rule, from: [{entity: Anywhere}]}]}", "spec.ingress[0].name", "a-z0-9"},
		"rule without from":  {"{selector: {}, directions: [Ingress], ingress: [{name: r}]}", "spec.ingress[0].from", "Required value"},
		"rule without peers": {"{selector: {}, directions: [Ingress], ingress: [{name: r, from: []}]}", "spec.ingress[0].from", "entity: Anywhere"},
		"egress rule without peers": {"{selector: {}, directions: [Egress], egress: [{name: r, to: []}]}",
			"spec.egress[0].to", "entity: Anywhere"},

		"empty peer":              {withPeer("{}"), peerField, "exactly one of app, service, cidr and entity; write two peers"},
		"two peers in one":        {withPeer("{app: {}, entity: Anywhere}"), peerField, "exactly one of app, service, cidr and entity; write two peers"},
		"unknown entity":          {withPeer("{entity: Everyone}"), peerField + ".entity", `supported values: "Anywhere", "SameNamespace", "AllNamespaces", "Internet", "DNS", "KubeAPIServer", "Nodes", "IngressControllers", "Monitoring"`},
		"service and app":         {withPeer("{service: {name: redis}, app: {}}"), peerField, "exactly one of app, service, cidr and entity"},
		"service without a name":  {withPeer("{service: {}}"), peerField + ".service.name", "Required value"},
		"bad service name":        {withPeer("{service: {name: 1st}}"), peerField + ".service.name", "a-z0-9"},
		"bad service namespace":   {withPeer("{service: {name: redis, namespace: My_NS}}"), peerField + ".service.namespace", "a-z0-9"},
		"ports beside a service":  {withPort("{port: 80}", "{service: {name: redis}}"), "spec.egress[0].ports", "bring their own ports: remove ports, or move the peers"},
		"ports beside DNS":        {withPort("{port: 53}", "{entity: Anywhere}, {entity: DNS}"), "spec.egress[0].ports", "bring their own ports"},
		"ports beside API server": {withPort("{port: 443}", "{entity: KubeAPIServer}"), "spec.egress[0].ports", "bring their own ports"},
		"empty namespaces":        {withPeer("{app: {namespaces: {}}}"), peerField + ".app.namespaces", "exactly one of names and selector"},
		"names and selector":      {withPeer("{app: {namespaces: {names: [a], selector: {}}}}"), peerField + ".app.namespaces", "exactly one of names and selector"},
		"no namespace names":      {withPeer("{app: {namespaces: {names: []}}}"), peerField + ".app.namespaces.names", "at least 1"},
		"bad namespace name":      {withPeer("{app: {namespaces: {names: [My_NS]}}}"), peerField + ".app.namespaces.names[0]", "a-z0-9"},
		"too long namespace name": {withPeer("{app: {namespaces: {names: [" + strings.Repeat("a", 64) + "]}}}"), peerField + ".app.namespaces.names[0]", "63"},

		"bad label key":             {withSelector("{matchLabels: {'a b': c}}"), "spec.selector.matchLabels", "a label key is [prefix/]name"},
		"empty label key":           {withSelector("{matchLabels: {'': c}}"), "spec.selector.matchLabels", "a label key is [prefix/]name"},
		"two slashes in a key":      {withSelector("{matchLabels: {a/b/c: d}}"), "spec.selector.matchLabels", "a label key is [prefix/]name"},
		"too long label key":        {withSelector("{matchLabels: {" + strings.Repeat("a", 64) + ": c}}"), "spec.selector.matchLabels", "at most 63"},
		"bad label value":           {withSelector("{matchLabels: {a: 'b c'}}"), "spec.selector.matchLabels.a", "A-Za-z0-9"},
		"label value ends badly":    {withSelector("{matchLabels: {a: b-}}"), "spec.selector.matchLabels.a", "A-Za-z0-9"},
		"too long label value":      {withSelector("{matchLabels: {a: " + strings.Repeat("b", 64) + "}}"), "spec.selector.matchLabels.a", "63"},
		"bad key in expression":     {withSelector("{matchExpressions: [{key: 'a b', operator: Exists}]}"), "spec.selector.matchExpressions[0].key", "A-Za-z0-9"},
		"too long name in key":      {withSelector("{matchExpressions: [{key: x/" + strings.Repeat("a", 64) + ", operator: Exists}]}"), "spec.selector.matchExpressions[0].key", "A-Za-z0-9"},
		"too long prefix in key":    {withSelector("{matchExpressions: [{key: " + strings.Repeat("a", 254) + "/a, operator: Exists}]}"), "spec.selector.matchExpressions[0].key", "the prefix of a label key has at most 253"},
		"unknown operator":          {withSelector("{matchExpressions: [{key: a, operator: Equals, values: [b]}]}"), "spec.selector.matchExpressions[0].operator", `supported values: "In", "NotIn", "Exists", "DoesNotExist"`},
		"In without values":         {withSelector("{matchExpressions: [{key: a, operator: In}]}"), "spec.selector.matchExpressions[0].values", "need at least one value"},
		"NotIn with no values":      {withSelector("{matchExpressions: [{key: a, operator: NotIn, values: []}]}"), "spec.selector.matchExpressions[0].values", "need at least one value"},
		"Exists with values":        {withSelector("{matchExpressions: [{key: a, operator: Exists, values: [b]}]}"), "spec.selector.matchExpressions[0].values", "take no values: remove them, or use In or NotIn"},
		"DoesNotExist with values":  {withSelector("{matchExpressions: [{key: a, operator: DoesNotExist, values: [b]}]}"), "spec.selector.matchExpressions[0].values", "remove them"},
		"bad value in expression":   {withSelector("{matchExpressions: [{key: a, operator: In, values: ['b c']}]}"), "spec.selector.matchExpressions[0].values[0]", "A-Za-z0-9"},
		"bad label of a peer":       {withPeer("{app: {matchLabels: {'a b': c}}}"), peerField + ".app.matchLabels", "a label key is [prefix/]name"},
		"bad selector of peer":      {withPeer("{app: {matchExpressions: [{key: a, operator: In}]}}"), peerField + ".app.matchExpressions[0].values", "need at least one value"},
		"bad selector of namespace": {withPeer("{app: {namespaces: {selector: {matchExpressions: [{key: a, operator: In}]}}}}"), peerField + ".app.namespaces.selector.matchExpressions[0].values", "need at least one value"},

		"no range":              {withPeer("{cidr: {}}"), peerField + ".cidr.cidr", "Required value"},
		"not a range":           {withPeer("{cidr: {cidr: 10.0.0.0}}"), peerField + ".cidr.cidr", "write address/prefix-length"},
		"empty range":           {withPeer("{cidr: {cidr: ''}}"), peerField + ".cidr.cidr", "write address/prefix-length"},
		"octet too large":       {withPeer("{cidr: {cidr: 10.0.0.256/32}}"), peerField + ".cidr.cidr", "write address/prefix-length"},
		"prefix too long":       {withPeer("{cidr: {cidr: 10.0.0.0/33}}"), peerField + ".cidr.cidr", "write address/prefix-length"},
		"leading zero":          {withPeer("{cidr: {cidr: 010.0.0.0/8}}"), peerField + ".cidr.cidr", "write address/prefix-length"},
		"IPv4 in IPv6":          {withPeer("{cidr: {cidr: '::ffff:10.0.0.0/104'}}"), peerField + ".cidr.cidr", "write address/prefix-length"},
		"bits after the prefix": {withPeer("{cidr: {cidr: 10.0.0.1/8}}"), peerField + ".cidr.cidr", "10.0.0.1/32 where the one address is"},
		"IPv6 bits after it":    {withPeer("{cidr: {cidr: '2001:db8::1/32'}}"), peerField + ".cidr.cidr", "bits are set after the prefix length"},
		"except is no range":    {withPeer("{cidr: {cidr: 10.0.0.0/8, except: [nonsense]}}"), peerField + ".cidr.except[0]", "write address/prefix-length"},
		"except has host bits":  {withPeer("{cidr: {cidr: 10.0.0.0/8, except: [10.1.0.1/16]}}"), peerField + ".cidr.except[0]", "bits are set after the prefix length"},
		"except outside":        {withPeer("{cidr: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 192.168.0.0/16]}}"), peerField + ".cidr.except", "lies inside of cidr"},
		"except is all":         {withPeer("{cidr: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}"), peerField + ".cidr.except", "is smaller than it"},
		"except is larger":      {withPeer("{cidr: {cidr: 10.0.0.0/8, except: [0.0.0.0/0]}}"), peerField + ".cidr.except", "lies inside of cidr"},
		"except of IPv6":        {withPeer("{cidr: {cidr: 10.0.0.0/8, except: ['2001:db8::/32']}}"), peerField + ".cidr.except", "lies inside of cidr"},

		"port 0":               {withPort("{port: 0}"), portField + ".port", "between 1 and 65535"},
		"port 65536":           {withPort("{port: 65536}"), portField + ".port", "between 1 and 65535"},
		"negative port":        {withPort("{port: -1}"), portField + ".port", "between 1 and 65535"},
		"port that overflows":  {withPort("{port: 4294967376}"), portField + ".port", "between 1 and 65535"},
		"number in quotes":     {withPort("{port: '80'}"), portField + ".port", "a number is written without quotes"},
		"empty port name":      {withPort("{port: ''}"), portField + ".port", "a port name has at most 15"},
		"upper-case port name": {withPort("{port: HTTP}"), portField + ".port", "a port name has at most 15"},
		"double hyphen":        {withPort("{port: a--b}"), portField + ".port", "a port name has at most 15"},
		"hyphen at the end":    {withPort("{port: a-}"), portField + ".port", "a port name has at most 15"},
		"too long port name":   {withPort("{port: abcdefghijklmnop}"), portField + ".port", "15"},
		"no letter in name":    {withPort("{port: 1-2}"), portField + ".port", "at least one letter"},
		"unknown protocol":     {withPort("{port: 80, protocol: ICMP}"), portField + ".protocol", `supported values: "TCP", "UDP", "SCTP"`},
		"endPort without port": {withPort("{endPort: 80}"), portField + ".endPort", "endPort needs port"},
		"endPort with a name":  {withPort("{port: http, endPort: 80}"), portField + ".endPort", "write the number of the port"},
		"endPort below port":   {withPort("{port: 81, endPort: 80}"), portField + ".endPort", "at least as large as port"},
		"endPort 65536":        {withPort("{port: 81, endPort: 65536}"), portField + ".endPort", "65535"},
	} {
		t.Run(name, func(t *testing.T) {
			err := admin.Create(t.Context(), appIsolation(t, namespace, refused.spec), client.FieldValidation("Strict"))
			require.True(t, apierrors.IsInvalid(err), "want it refused as invalid, got %v", err)
			require.ErrorContains(t, err, refused.field+":")
			require.ErrorContains(t, err, refused.fix)
		})
	}
}

func TestNameLeavesRoomForThePolicy(t *testing.T) {
	admin, namespace := server.Admin(t), server.Namespace(t)
	app := appIsolation(t, namespace, "{selector: {}, directions: [Ingress]}")
	app.SetName(strings.Repeat("a", 247))
	require.ErrorContains(t, admin.Create(t.Context(), app), "at most 246 characters")
	app.SetName(strings.Repeat("a", 246))
	require.NoError(t, admin.Create(t.Context(), app))
}

// TestNetworkPolicyRefusesHostBits holds the reason why CIDRPeer refuses them.
func TestNetworkPolicyRefusesHostBits(t *testing.T) {
	admin, namespace := server.Admin(t), server.Namespace(t)
	policy := &networkingv1.NetworkPolicy{}
	policy.Namespace, policy.Name = namespace, "host-bits"
	policy.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{
		From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.1/8"}}},
	}}
	require.True(t, apierrors.IsInvalid(admin.Create(t.Context(), policy)))
}

// TestLargestObject shows that an object at the bounds of the API doesn't
// exhaust the API server's CEL budget.
func TestLargestObject(t *testing.T) {
	admin, namespace := server.Admin(t), server.Namespace(t)
	var except, peers, rules []string
	for i := range 32 {
		except = append(except, fmt.Sprintf("10.9.%d.0/24", i))
	}
	for range 64 {
		peers = append(peers, fmt.Sprintf("{cidr: {cidr: 10.0.0.0/8, except: [%s]}}", strings.Join(except, ",")))
	}
	for i := range 32 {
		rules = append(rules, fmt.Sprintf("{name: r%d, from: [%s], ports: [{port: http}]}", i, strings.Join(peers, ",")))
	}
	spec := fmt.Sprintf("{selector: {}, directions: [Ingress], ingress: [%s]}", strings.Join(rules, ","))
	require.NoError(t, admin.Create(t.Context(), appIsolation(t, namespace, spec)))
}
