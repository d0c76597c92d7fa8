package dataplane

import (
	"testing"

	"github.com/moat-dev/moat/dataplane/iptables"
)

// Each policy is put in force on a node and every probe between all hosts, in
// both families, has to meet the fate that policy.Evaluate says.
func TestPacketsAgreeWithEvaluate(t *testing.T) {
	specs := []struct{ name, spec string }{
		{"isolates, allows nothing", `{podSelector: {}, policyTypes: [Ingress, Egress]}`},
		{"ingress only", `{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress]}`},
		{"egress only", `{podSelector: {matchLabels: {role: db}}, policyTypes: [Egress]}`},
		{"one empty rule allows all", `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}`},
		{"a pod selector alone means the own namespace", `{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}]}]}`},
		{"a namespace selector and a pod selector in one peer both count",
			`{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchLabels: {project: myproject}}, podSelector: {matchLabels: {role: frontend}}}]}]}`},
		{"every namespace", `{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}}]}]}`},
		{"the name of a namespace is a label",
			`{podSelector: {matchLabels: {role: db}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ours}}}]}]}`},
		{"an exception counts within its own block only",
			`{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}}, {ipBlock: {cidr: 172.17.1.10/32}}]}]}`},
		{"ipBlock matches pods", `{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 10.244.2.0/24}}]}]}`},
		{"every IPv4 address", `{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`},
		{"every IPv6 address but one", `{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: "::/0", except: ["fd00:10:244:2::10/128"]}}]}]}`},
		{"a CIDR that isn't canonical", `{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 10.244.2.77/24}}]}]}`},
		{"a port of TCP lets no other protocol through", `{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{ports: [{port: 80}]}]}`},
		{"all ports of a protocol", `{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress, Egress], ingress: [{ports: [{protocol: UDP}]}], egress: [{ports: [{protocol: TCP}]}]}`},
		{"endPort is inclusive", `{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{ports: [{port: 80, endPort: 81}]}]}`},
		{"several ports and protocols", `{podSelector: {matchLabels: {role: db}}, policyTypes: [Egress], egress: [{ports: [{port: 80}, {port: 5978}, {protocol: UDP, port: 53}]}]}`},
		{"a named port of the pod", `{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{ports: [{port: web}]}]}`},
		{"a named port of the peers", `{podSelector: {matchLabels: {role: db}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: web}]}]}`},
		{"a name that nobody serves", `{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{ports: [{port: nobody}]}]}`},
	}
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.label("test-np", map[string]string{"role": "db"})
		s.label("neighbour", map[string]string{"role": "frontend"})
		s.label("project", map[string]string{"role": "frontend"})
		for _, row := range specs {
			t.Run(row.name, func(t *testing.T) {
				s.t = t
				s.apply("metadata: {name: row}\nspec: " + row.spec)
				s.sync()
				s.requireAgreement()
			})
		}
		t.Run("several policies add up", func(t *testing.T) {
			s.t = t
			for i, row := range specs[1:] {
				s.apply("metadata: {name: p" + string(rune('a'+i)) + "}\nspec: " + row.spec)
			}
			s.sync()
			s.requireAgreement()
			s.enforcer.distrust()
			s.sync()
		})
	})
}
