package recipes

import (
	"slices"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// Who is there. A pod without a namespace is one of default.
var (
	own     = []string{"web", "api", "search", "db", "inventory", "apiserver", "monitoring", "foo", "plain"}
	cluster = append(slices.Clone(own), "prod/client", "ops/monitor", "ops/other", "dev/monitor")
	// world is a host outside of the cluster.
	everyone = append(slices.Clone(cluster), "world")
)

// podLabels are those of the pods, namespaceLabels those of their namespaces.
var (
	podLabels = map[string]map[string]string{
		"web":         {"app": "web"},
		"api":         {"app": "bookstore", "role": "api"},
		"search":      {"app": "bookstore", "role": "search"},
		"db":          {"app": "bookstore", "role": "db"},
		"inventory":   {"app": "inventory", "role": "web"},
		"apiserver":   {"app": "apiserver"},
		"monitoring":  {"role": "monitoring"},
		"foo":         {"app": "foo"},
		"plain":       nil,
		"prod/client": nil,
		"ops/monitor": {"type": "monitoring"},
		"ops/other":   nil,
		"dev/monitor": {"type": "monitoring"},
	}
	namespaceLabels = map[string]map[string]string{
		"prod": {"purpose": "production"},
		"ops":  {"team": "operations"},
		"dev":  {"team": "development"},
	}
)

// port is one that everyone serves. The address family is that of the probes.
type port struct {
	network string
	number  uint16
	family  family
}

type family int

const (
	ipv4 family = iota
	ipv6
)

var (
	http    = port{"tcp", 80, ipv4}
	metrics = port{"tcp", 5000, ipv6}
	dns     = port{"udp", 53, ipv6}
	dnsTCP  = port{"tcp", 53, ipv4}

	allPorts = []port{http, metrics, dns, dnsTCP}
)

// rule lets its peers through at its ports.
type rule struct {
	peers []string
	ports []port
}

// recipe is what a file has to do: close a direction of some pods but for the rules.
// Nothing else is closed.
type recipe struct {
	file      string
	direction v1alpha1.Direction
	closes    []string
	but       []rule
}

const (
	ingress = v1alpha1.DirectionIngress
	egress  = v1alpha1.DirectionEgress
)

var recipes = []recipe{
	{"01-deny-all-traffic-to-an-application", ingress, []string{"web"}, nil},
	{"02-limit-traffic-to-an-application", ingress, []string{"api"}, []rule{{[]string{"api", "search", "db"}, allPorts}}},
	{"02a-allow-all-traffic-to-an-application", ingress, []string{"web"}, []rule{{everyone, allPorts}}},
	{"03-deny-all-traffic-in-the-namespace", ingress, own, nil},
	{"04-deny-traffic-from-other-namespaces", ingress, own, []rule{{own, allPorts}}},
	{"05-allow-traffic-from-all-namespaces", ingress, []string{"web"}, []rule{{cluster, allPorts}}},
	{"06-allow-traffic-from-a-namespace", ingress, []string{"web"}, []rule{{[]string{"prod/client"}, allPorts}}},
	{"07-allow-traffic-from-some-pods-in-another-namespace", ingress, []string{"web"}, []rule{{[]string{"ops/monitor"}, allPorts}}},
	{"08-allow-external-traffic", ingress, []string{"web"}, []rule{{everyone, []port{http}}}},
	{"09-allow-traffic-only-to-a-port", ingress, []string{"apiserver"}, []rule{{[]string{"monitoring"}, []port{metrics}}}},
	{"10-allow-traffic-with-multiple-selectors", ingress, []string{"db"}, []rule{{[]string{"search", "api", "inventory"}, allPorts}}},
	{"11-deny-egress-traffic-from-an-application", egress, []string{"foo"}, nil},
	{"11a-deny-egress-but-dns", egress, []string{"foo"}, []rule{{everyone, []port{dns, dnsTCP}}}},
	{"12-deny-all-traffic-from-the-namespace", egress, own, nil},
	{"14-deny-external-egress-traffic", egress, []string{"foo"}, []rule{{everyone, []port{dns, dnsTCP}}, {cluster, allPorts}}},
}

// together are recipes that are made to be combined: what one of them allows is
// allowed.
var together = [][]string{
	{"02a-allow-all-traffic-to-an-application", "03-deny-all-traffic-in-the-namespace"},
	{"11a-deny-egress-but-dns", "12-deny-all-traffic-from-the-namespace"},
}

// flow is a first packet.
type flow struct {
	from, to string
	port     port
}

// allows says whether recipes that are applied together let a flow through: both
// ends have a say, and where some recipes close an end, one of them has to allow it.
func allows(applied []recipe, f flow) bool {
	return f.from == f.to || allowsAt(applied, egress, f.from, f.to, f.port) && allowsAt(applied, ingress, f.to, f.from, f.port)
}

func allowsAt(applied []recipe, direction v1alpha1.Direction, subject, peer string, at port) bool {
	closed := false
	for _, r := range applied {
		if r.direction != direction || !slices.Contains(r.closes, subject) {
			continue
		}
		closed = true
		for _, but := range r.but {
			if slices.Contains(but.peers, peer) && slices.Contains(but.ports, at) {
				return true
			}
		}
	}
	return !closed
}

// flowsOf returns all flows from and to what the recipes close, and some that they
// have no part in.
func flowsOf(applied []recipe) []flow {
	concerned := func(name string) bool {
		return name == "plain" || slices.ContainsFunc(applied, func(r recipe) bool { return slices.Contains(r.closes, name) })
	}
	var flows []flow
	for _, from := range everyone {
		for _, to := range everyone {
			if from == to || !concerned(from) && !concerned(to) {
				continue
			}
			for _, at := range allPorts {
				flows = append(flows, flow{from, to, at})
			}
		}
	}
	return flows
}
