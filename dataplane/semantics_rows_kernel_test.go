package dataplane

// db isolates the databases in one direction.
const (
	dbIngress = `{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: `
	dbEgress  = `{podSelector: {matchLabels: {role: db}}, policyTypes: [Egress], egress: `
)

// one is the specs of a row with one policy.
func one(spec string) []string { return []string{spec} }

var semanticsRows = []row{
	{
		name:   "one peer with podSelector and namespaceSelector is AND",
		specs:  one(dbIngress + `[{from: [{namespaceSelector: {matchLabels: {project: myproject}}, podSelector: {matchLabels: {role: frontend}}}]}]}`),
		passes: []string{"project -> db ping", "project -> replica tcp/80"},
		drops:  []string{"other -> db ping", "stranger -> db ping", "frontend -> db tcp/80", "worker -> db tcp/80", "office -> db tcp/80"},
	},
	{
		name:   "separate list items are OR",
		specs:  one(dbIngress + `[{from: [{namespaceSelector: {matchLabels: {project: myproject}}}, {podSelector: {matchLabels: {role: frontend}}}]}]}`),
		passes: []string{"project -> db ping", "other -> db tcp/80", "frontend -> db tcp/81", "worker -> db ping"},
		drops:  []string{"stranger -> db ping", "batch -> db tcp/80", "office -> db tcp/80"},
	},
	{
		name:   "podSelector alone means the own namespace",
		specs:  one(dbIngress + `[{from: [{podSelector: {matchLabels: {role: frontend}}}]}]}`),
		passes: []string{"frontend -> db tcp/80", "worker -> db ping"},
		drops:  []string{"project -> db tcp/80", "stranger -> db ping", "batch -> db ping"},
	},
	{
		name:   "namespaceSelector {} means every namespace",
		specs:  one(dbIngress + `[{from: [{namespaceSelector: {}}]}]}`),
		passes: []string{"project -> db ping", "stranger -> db tcp/80", "batch -> db udp/53"},
		drops:  []string{"office -> db ping", "excepted -> db tcp/80"},
	},
	{
		name:   "podSelector {} means every pod of the own namespace",
		specs:  one(dbEgress + `[{to: [{podSelector: {}}]}]}`),
		passes: []string{"db -> batch tcp/80", "db -> worker ping", "db -> replica sctp/80"},
		drops:  []string{"db -> project tcp/80", "db -> stranger ping", "db -> office ping"},
	},
	{
		name:   "podSelector {} with a namespaceSelector means every pod of those namespaces",
		specs:  one(dbEgress + `[{to: [{podSelector: {}, namespaceSelector: {matchLabels: {project: myproject}}}]}]}`),
		passes: []string{"db -> project tcp/80", "db -> other ping"},
		drops:  []string{"db -> batch tcp/80", "db -> stranger ping"},
	},
	{
		name:   "a policy's own podSelector {} selects every pod of its namespace and no other",
		specs:  one(`{podSelector: {}, policyTypes: [Ingress]}`),
		passes: []string{"db -> project tcp/80", "db -> office ping"},
		drops:  []string{"project -> db ping", "project -> frontend tcp/80", "db -> batch ping"},
	},
	{
		name:   "from absent is no restriction of peers",
		specs:  one(dbIngress + `[{ports: [{port: 80}]}]}`),
		passes: []string{"office -> db tcp/80", "stranger -> db tcp/80", "batch -> replica tcp/80"},
		drops:  []string{"office -> db tcp/81", "batch -> db ping"},
	},
	{
		name:   "to empty is no restriction of peers",
		specs:  one(dbEgress + `[{to: [], ports: [{port: 80}]}]}`),
		passes: []string{"db -> office tcp/80", "db -> stranger tcp/80", "db -> batch tcp/80"},
		drops:  []string{"db -> office tcp/81", "db -> batch ping"},
	},
	{
		name:   "ports empty is no restriction of ports",
		specs:  one(dbIngress + `[{from: [{podSelector: {matchLabels: {role: batch}}}], ports: []}]}`),
		passes: []string{"batch -> db ping", "batch -> db tcp/81", "batch -> db udp/53", "batch -> db sctp/80"},
		drops:  []string{"frontend -> db ping", "frontend -> db tcp/80"},
	},
	{
		name:   "ingress: [{}] allows all",
		specs:  one(dbIngress + `[{}]}`),
		passes: []string{"office -> db ping", "stranger -> db tcp/5978", "batch -> db udp/53", "frontend -> db sctp/81"},
	},
	{
		name:   "rule list empty, type set: isolates, allows nothing",
		specs:  one(`{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress, Egress], ingress: [], egress: []}`),
		passes: []string{"frontend -> batch tcp/80", "office -> frontend ping"},
		drops:  []string{"frontend -> db tcp/80", "office -> db ping", "db -> frontend tcp/80", "db -> office udp/53", "db -> replica ping"},
	},
	{
		name:   "policyTypes: rules of a type that isn't stored count for nothing (Ingress)",
		specs:  one(`{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], egress: [{to: [{podSelector: {matchLabels: {role: batch}}}]}]}`),
		passes: []string{"db -> frontend tcp/80", "db -> office ping"},
		drops:  []string{"frontend -> db tcp/80", "batch -> db ping"},
	},
	{
		name:   "policyTypes: rules of a type that isn't stored count for nothing (Egress)",
		specs:  one(`{podSelector: {matchLabels: {role: db}}, policyTypes: [Egress], ingress: [{from: [{podSelector: {matchLabels: {role: batch}}}]}]}`),
		passes: []string{"frontend -> db tcp/80", "batch -> db ping"},
		drops:  []string{"db -> frontend tcp/80", "db -> batch ping"},
	},
	{
		name:   "- ports: as a list item of its own is a second rule",
		specs:  one(dbIngress + `[{from: [{podSelector: {matchLabels: {role: frontend}}}]}, {ports: [{protocol: TCP, port: 80}]}]}`),
		passes: []string{"frontend -> db ping", "frontend -> db tcp/81", "office -> db tcp/80", "batch -> db tcp/80"},
		drops:  []string{"office -> db ping", "batch -> db tcp/81", "project -> db udp/53"},
	},
	{
		name:   "protocol nil is TCP",
		specs:  one(dbIngress + `[{ports: [{port: 80}, {port: 53}]}]}`),
		passes: []string{"batch -> db tcp/80", "office -> db tcp/80"},
		drops:  []string{"batch -> db sctp/80", "batch -> db udp/53", "batch -> db tcp/81"},
	},
	{
		name:   "port nil is every port of that protocol and no other",
		specs:  one(dbIngress + `[{ports: [{protocol: UDP}]}]}`),
		passes: []string{"batch -> db udp/53", "office -> db udp/53"},
		drops:  []string{"batch -> db tcp/80", "batch -> db sctp/80", "batch -> db ping"},
	},
	{
		name:   "port and protocol nil is every port of TCP",
		specs:  one(dbEgress + `[{ports: [{}]}]}`),
		passes: []string{"db -> batch tcp/80", "db -> office tcp/5978"},
		drops:  []string{"db -> batch udp/53", "db -> batch sctp/80", "db -> office ping"},
	},
	{
		name:   "a rule with ports lets no ICMP through",
		specs:  one(dbIngress + `[{ports: [{protocol: TCP}, {protocol: UDP}, {protocol: SCTP}]}]}`),
		passes: []string{"batch -> db tcp/80", "batch -> db udp/53", "batch -> db sctp/80"},
		drops:  []string{"batch -> db ping", "office -> db ping"},
	},
	{
		name:   "endPort is inclusive",
		specs:  one(dbIngress + `[{ports: [{port: 80, endPort: 81}]}]}`),
		passes: []string{"batch -> db tcp/80", "batch -> db tcp/81"},
		drops:  []string{"batch -> db tcp/5978", "batch -> db sctp/80", "batch -> db ping"},
	},
	{
		name:   "endPort: the first port counts, the one before it doesn't",
		specs:  one(dbEgress + `[{ports: [{port: 81, endPort: 5978}]}]}`),
		passes: []string{"db -> batch tcp/81", "db -> office tcp/5978"},
		drops:  []string{"db -> batch tcp/80", "db -> office tcp/80"},
	},
	{
		name:   "named port, ingress: the container ports of the target",
		specs:  one(dbIngress + `[{ports: [{port: web}]}]}`),
		passes: []string{"batch -> db tcp/80", "office -> db tcp/80", "batch -> replica tcp/81"},
		drops:  []string{"batch -> db tcp/81", "batch -> replica tcp/80", "batch -> db sctp/80", "batch -> db ping"},
	},
	{
		name:  "named port, ingress: the protocol must match",
		specs: one(dbIngress + `[{ports: [{port: web, protocol: UDP}, {port: web, protocol: SCTP}, {port: signal, protocol: TCP}]}]}`),
		drops: []string{"batch -> db tcp/80", "batch -> db sctp/80", "batch -> db udp/53", "batch -> replica tcp/81"},
	},
	{
		name:   "named port, egress: pairs of address and port of each destination (k3s 7391)",
		specs:  one(`{podSelector: {matchLabels: {role: frontend}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {role: db}}}], ports: [{port: web}]}]}`),
		passes: []string{"frontend -> db tcp/80", "frontend -> replica tcp/81"},
		drops:  []string{"frontend -> db tcp/81", "frontend -> replica tcp/80", "frontend -> batch tcp/80", "frontend -> office tcp/80"},
	},
	{
		name:   "named port, egress without peers: pods that serve it, and nobody else",
		specs:  one(`{podSelector: {matchLabels: {role: frontend}}, policyTypes: [Egress], egress: [{ports: [{port: web}]}]}`),
		passes: []string{"frontend -> db tcp/80", "frontend -> replica tcp/81", "frontend -> stranger tcp/80"},
		drops:  []string{"frontend -> db tcp/81", "frontend -> office tcp/80"},
	},
	{
		name:  "a name that nobody serves isolates",
		specs: one(dbIngress + `[{ports: [{port: nobody}]}]}`),
		drops: []string{"batch -> db tcp/80", "office -> db ping", "frontend -> db sctp/80"},
	},
	{
		name:  "a selector that nobody matches isolates",
		specs: one(dbIngress + `[{from: [{podSelector: {matchLabels: {role: nobody}}}, {namespaceSelector: {matchLabels: {nobody: here}}}]}]}`),
		drops: []string{"batch -> db tcp/80", "office -> db ping", "project -> db udp/53"},
	},
	{
		name:  "a rule of a protocol that isn't served isolates",
		specs: one(dbIngress + `[{ports: [{protocol: SCTP, port: 7777}]}]}`),
		drops: []string{"batch -> db tcp/80", "office -> db ping", "project -> db udp/53", "batch -> db sctp/80"},
	},
	{
		name:   "ipBlock matches the addresses of pods too",
		specs:  one(dbIngress + `[{from: [{ipBlock: {cidr: 10.244.2.0/24}}, {ipBlock: {cidr: "fd00:10:244:2::/64"}}]}]}`),
		passes: []string{"worker -> db ping", "other -> db tcp/80", "stranger -> db udp/53"},
		drops:  []string{"frontend -> db ping", "office -> db tcp/80"},
	},
	{
		name:   "except subtracts",
		specs:  one(dbIngress + `[{from: [{ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}}, {ipBlock: {cidr: "2001:db8:17::/48", except: ["2001:db8:17:1::/64"]}}]}]}`),
		passes: []string{"office -> db ping", "office -> db sctp/80"},
		drops:  []string{"excepted -> db ping", "excepted -> db tcp/80", "batch -> db ping"},
	},
	{
		name: "except subtracts within its own block only",
		specs: one(dbIngress + `[{from: [{ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}}, {ipBlock: {cidr: 172.17.1.10/32}},
  {ipBlock: {cidr: "2001:db8:17::/48", except: ["2001:db8:17:1::/64"]}}, {ipBlock: {cidr: "2001:db8:17:1::10/128"}}]}]}`),
		passes: []string{"office -> db ping", "excepted -> db ping"},
		drops:  []string{"batch -> db ping"},
	},
	{
		name:   "except takes nothing from a selector beside it",
		specs:  one(dbIngress + `[{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.244.0.0/16]}}, {ipBlock: {cidr: "::/0", except: ["fd00::/16"]}}, {podSelector: {matchLabels: {role: batch}}}]}]}`),
		passes: []string{"batch -> db ping", "office -> db tcp/80"},
		drops:  []string{"frontend -> db ping", "worker -> db tcp/80"},
	},
	{
		name:   "several policies are a union",
		specs:  []string{dbIngress + `[{from: [{podSelector: {matchLabels: {role: frontend}}}]}]}`, dbIngress + `[{ports: [{port: 81}]}]}`, dbIngress + `[]}`},
		passes: []string{"frontend -> db ping", "frontend -> db tcp/80", "batch -> db tcp/81", "office -> db tcp/81"},
		drops:  []string{"batch -> db tcp/80", "office -> db ping"},
	},
	{
		name:   "several policies have no order",
		specs:  []string{dbIngress + `[]}`, dbIngress + `[{ports: [{port: 81}]}]}`, dbIngress + `[{from: [{podSelector: {matchLabels: {role: frontend}}}]}]}`},
		passes: []string{"frontend -> db ping", "frontend -> db tcp/80", "batch -> db tcp/81", "office -> db tcp/81"},
		drops:  []string{"batch -> db tcp/80", "office -> db ping"},
	},
	{
		name: "the sender's egress and the receiver's ingress must both allow, on the same node too (kube-router 916)",
		specs: []string{
			`{podSelector: {matchLabels: {role: batch}}, policyTypes: [Egress], egress: [{ports: [{port: 80}, {port: 81}]}]}`,
			dbIngress + `[{ports: [{port: 81}, {port: 5978}]}]}`,
		},
		passes: []string{"batch -> db tcp/81", "batch -> frontend tcp/80", "frontend -> db tcp/5978"},
		drops:  []string{"batch -> db tcp/80", "batch -> db tcp/5978", "batch -> frontend tcp/5978", "frontend -> db tcp/80"},
	},
	{
		name: "what is said twice counts once",
		specs: []string{
			dbIngress + `[{from: [{podSelector: {matchLabels: {role: batch}}}, {podSelector: {matchLabels: {role: batch}}}], ports: [{port: 80}, {port: 80}]}]}`,
			dbIngress + `[{from: [{podSelector: {matchLabels: {role: batch}}}, {podSelector: {matchLabels: {role: batch}}}], ports: [{port: 80}, {port: 80}]}]}`,
		},
		passes: []string{"batch -> db tcp/80", "batch -> replica tcp/80"},
		drops:  []string{"batch -> db tcp/81", "frontend -> db tcp/80"},
	},
	{
		name:   "kubernetes.io/metadata.name works as any label",
		specs:  one(dbIngress + `[{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ours}}}]}]}`),
		passes: []string{"project -> db ping", "other -> db tcp/80"},
		drops:  []string{"stranger -> db ping", "frontend -> db tcp/80"},
	},
	{
		name: "every operator of a selector",
		specs: []string{
			dbIngress + `[{from: [{podSelector: {matchExpressions: [{key: role, operator: In, values: [batch, nobody]}]}}]}]}`,
			dbIngress + `[{ports: [{port: 80}], from: [{namespaceSelector: {matchExpressions: [{key: project, operator: Exists}]}, podSelector: {matchExpressions: [{key: role, operator: NotIn, values: [batch]}]}}]}]}`,
			dbIngress + `[{ports: [{port: 81}], from: [{namespaceSelector: {matchExpressions: [{key: project, operator: DoesNotExist}]}}]}]}`,
		},
		passes: []string{"batch -> db ping", "project -> db tcp/80", "stranger -> db tcp/81", "frontend -> db tcp/81"},
		drops:  []string{"other -> db tcp/80", "project -> db tcp/81", "stranger -> db tcp/80", "frontend -> db tcp/80"},
	},
	{
		name:   "pod -> itself is always allowed",
		specs:  one(`{podSelector: {}, policyTypes: [Ingress, Egress]}`),
		passes: []string{"db -> db ping", "db -> db tcp/80", "db -> db udp/53", "db -> db sctp/80"},
		drops:  []string{"db -> replica ping", "replica -> db tcp/80"},
	},
	{
		name:   "replies always pass",
		specs:  []string{dbIngress + `[{}]}`, dbEgress + `[]}`, `{podSelector: {matchLabels: {role: batch}}, policyTypes: [Ingress]}`},
		passes: []string{"batch -> db tcp/80", "batch -> db ping", "batch -> db udp/53", "batch -> db sctp/80", "office -> db tcp/80"},
		drops:  []string{"db -> batch tcp/80", "db -> office ping"},
	},
	{
		name:   "IPv6: ::/0 is every IPv6 address and no IPv4 address",
		specs:  one(dbIngress + `[{from: [{ipBlock: {cidr: "::/0"}}]}]}`),
		passes: []string{"office -> db ping (IPv6)", "batch -> db tcp/80 (IPv6)", "worker -> db udp/53 (IPv6)"},
		drops:  []string{"office -> db ping (IPv4)", "batch -> db tcp/80 (IPv4)"},
	},
	{
		name:   "IPv4: 0.0.0.0/0 is every IPv4 address and no IPv6 address",
		specs:  one(dbEgress + `[{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [172.17.1.10/32]}}]}]}`),
		passes: []string{"db -> office ping (IPv4)", "db -> batch tcp/80 (IPv4)", "db -> worker udp/53 (IPv4)"},
		drops:  []string{"db -> office ping (IPv6)", "db -> batch tcp/80 (IPv6)", "db -> excepted ping (IPv4)"},
	},
	{
		name:   "SCTP: a number",
		specs:  one(dbIngress + `[{ports: [{protocol: SCTP, port: 80}]}]}`),
		passes: []string{"batch -> db sctp/80", "office -> db sctp/80"},
		drops:  []string{"batch -> db sctp/81", "batch -> db tcp/80", "batch -> db ping"},
	},
	{
		name:   "SCTP: endPort",
		specs:  one(dbEgress + `[{ports: [{protocol: SCTP, port: 81, endPort: 5978}]}]}`),
		passes: []string{"db -> batch sctp/81", "db -> office sctp/5978"},
		drops:  []string{"db -> batch sctp/80", "db -> batch tcp/81"},
	},
	{
		name:   "SCTP: every port",
		specs:  one(dbIngress + `[{ports: [{protocol: SCTP}]}]}`),
		passes: []string{"batch -> db sctp/80", "office -> db sctp/5978"},
		drops:  []string{"batch -> db tcp/80", "batch -> db udp/53"},
	},
	{
		name:   "SCTP: a named port, ingress",
		specs:  one(dbIngress + `[{ports: [{protocol: SCTP, port: signal}]}]}`),
		passes: []string{"batch -> db sctp/80", "office -> replica sctp/81"},
		drops:  []string{"batch -> db sctp/81", "batch -> replica sctp/80", "batch -> db tcp/80"},
	},
	{
		name:   "SCTP: a named port, egress",
		specs:  one(`{podSelector: {matchLabels: {role: batch}}, policyTypes: [Egress], egress: [{ports: [{protocol: SCTP, port: signal}]}]}`),
		passes: []string{"batch -> db sctp/80", "batch -> replica sctp/81"},
		drops:  []string{"batch -> db sctp/81", "batch -> replica sctp/80", "batch -> office sctp/80", "batch -> db tcp/80"},
	},
	{
		name:   "a stored CIDR that isn't canonical is masked",
		specs:  one(dbIngress + `[{from: [{ipBlock: {cidr: 10.244.2.77/24}}, {ipBlock: {cidr: "fd00:10:244:2::77/64"}}]}]}`),
		passes: []string{"worker -> db ping", "stranger -> db tcp/80"},
		drops:  []string{"batch -> db ping", "office -> db ping"},
	},
	{
		name: "an unreadable selector or CIDR closes its pods and nothing else (kube-router: a line that broke the whole restore)",
		specs: []string{
			dbIngress + `[{from: [{podSelector: {matchExpressions: [{key: role, operator: Near}]}}, {ipBlock: {cidr: nonsense}}]}]}`,
			`{podSelector: {matchLabels: {role: batch}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {role: frontend}}}]}]}`,
		},
		passes: []string{"frontend -> batch tcp/80", "frontend -> project ping", "db -> frontend ping"},
		drops:  []string{"frontend -> db tcp/80", "office -> db ping", "project -> batch ping"},
	},
}
