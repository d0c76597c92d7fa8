package dataplane

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/node/modeltest"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
)

// kernelSeedsVariable says how many random clusters are put into the kernel, as in
// MOAT_KERNEL_SEEDS=200 go test ./dataplane -run TestRandomClusters. Their seeds
// count from 0.
const kernelSeedsVariable = "MOAT_KERNEL_SEEDS"

const (
	kernelSeeds = 12

	// Bounds of what is sent in one cluster.
	mostOutside  = 4
	mostServices = 8
)

// The pods' prefixes of the generated cluster's node 1, which is the node that is
// built.
var localPods = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")}

// TestRandomClusters puts random clusters with random policies on a node. Every
// packet to and from its pods meets the fate that policy.Evaluate says.
func TestRandomClusters(t *testing.T) {
	nodetest.RequireKernel(t)
	t.Parallel()
	seeds := kernelSeeds
	if text := os.Getenv(kernelSeedsVariable); text != "" {
		var err error
		seeds, err = strconv.Atoi(text)
		require.NoError(t, err, kernelSeedsVariable)
	}
	var passed, dropped atomic.Int64
	t.Run("clusters", func(t *testing.T) {
		backends(t, func(t *testing.T, backend iptables.Backend) {
			for seed := range seeds {
				t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
					c := newRandomScene(t, backend, uint64(seed))
					c.sync()
					probes := c.localProbes()
					c.requireProbes(probes, c.evaluate)
					for _, p := range probes {
						if c.evaluate(p) {
							passed.Add(1)
						} else {
							dropped.Add(1)
						}
					}
				})
			}
		})
	})
	t.Logf("%d probes passed, %d were dropped", passed.Load(), dropped.Load())
	require.Positive(t, passed.Load())
	require.Positive(t, dropped.Load())
}

// randomScene is a scene whose hosts have one address each, which is their name.
type randomScene struct {
	*scene
	objects  *policytest.Objects
	services []policytest.Service
	verdicts *policy.Cluster
}

func newRandomScene(t *testing.T, backend iptables.Backend, seed uint64) *randomScene {
	t.Helper()
	c := &randomScene{scene: newScene(t, backend), objects: policytest.RandomDice(seed, 900).Cluster()}
	c.model = node.New(policytest.NodeName(1))
	for i := range c.objects.Pods {
		avoidGateway(&c.objects.Pods[i])
		modeltest.See(c.model, &c.objects.Pods[i])
	}
	for i := range c.objects.Namespaces {
		modeltest.See(c.model, &c.objects.Namespaces[i])
	}
	for i := range c.objects.Policies {
		modeltest.See(c.model, &c.objects.Policies[i])
	}
	c.verdicts = c.objects.Cluster()
	c.chooseServices(rand.New(rand.NewPCG(seed, 2)))
	c.addHosts()
	return c
}

// avoidGateway gives a pod another address instead of the one that the node has
// on its bridge.
func avoidGateway(pod *corev1.Pod) {
	for i := range pod.Status.PodIPs {
		if pod.Status.PodIPs[i].IP == nodetest.NodeAddr4.String() {
			pod.Status.PodIPs[i].IP = "10.244.1.241"
		}
	}
}

// chooseServices takes a few of those that can tell something, and ICMP.
func (c *randomScene) chooseServices(random *rand.Rand) {
	all := c.objects.Services()
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, service := range all {
		if service.Protocol == policy.ICMP || service.Port > 0 && len(c.services) < mostServices {
			c.services = append(c.services, service)
		}
	}
}

// addHosts adds a host for each address of pods and for some addresses outside of
// the cluster. The node has its own.
func (c *randomScene) addHosts() {
	c.t.Helper()
	c.run("ip", "route", "add", localPods[1].String(), "dev", "cni0")
	outside := map[bool]int{}
	for _, end := range c.objects.Ends() {
		name := end.Addr.String()
		switch {
		case end.Node == policytest.NodeName(1) && !end.Pod:
			c.run("ip", "addr", "add", name, "dev", "lo")
			c.serve(name, c.node.Host)
		case c.local(end.Addr):
			if end.Pod {
				c.serve(name, c.node.AddPod(c.t, name))
			}
		case end.Node != "":
			c.serve(name, c.node.AddRemote(c.t, name))
		case routable(end.Addr) && outside[end.Addr.Is4()] < mostOutside:
			outside[end.Addr.Is4()]++
			c.serve(name, c.node.AddRemote(c.t, name))
		}
	}
}

func (c *randomScene) local(addr netip.Addr) bool {
	return localPods[0].Contains(addr) || localPods[1].Contains(addr)
}

// routable leaves out addresses that hosts can't have.
func routable(addr netip.Addr) bool {
	reserved := netip.MustParsePrefix("240.0.0.0/4").Contains(addr) || netip.MustParsePrefix("0.0.0.0/8").Contains(addr)
	return addr.IsGlobalUnicast() && !reserved
}

func (c *randomScene) serve(name string, host *nodetest.Host) {
	c.t.Helper()
	known := slices.Contains(slices.Collect(maps.Values(c.hosts)), host)
	c.hosts[name] = host
	if known { // the node, which has two addresses
		return
	}
	for _, service := range c.services {
		switch service.Protocol {
		case policy.TCP:
			host.ServeTCP(c.t, service.Port)
		case policy.UDP:
			host.ServeUDP(c.t, service.Port)
		case policy.SCTP:
			host.ServeSCTP(c.t, service.Port)
		}
	}
}

// localProbes lists what pods of this node send and get.
func (c *randomScene) localProbes() []probe {
	var probes []probe
	for from, source := range c.hosts {
		for to := range c.hosts {
			src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
			// The node would send from its address on the bridge.
			if src.Is4() != dst.Is4() || !c.local(src) && !c.local(dst) || source == c.node.Host {
				continue
			}
			for _, service := range c.services {
				service = service.For(dst)
				connectionless := service.Protocol == policy.UDP || service.Protocol == policy.SCTP
				if c.hosts[to] == c.node.Host && connectionless {
					continue // answered from the address on the bridge
				}
				probes = append(probes, probe{from, to, policy.Flow{Source: src, Destination: dst, Protocol: service.Protocol, Port: service.Port}})
			}
		}
	}
	return probes
}

// evaluate says whether this node lets the probe pass. Other nodes filter nothing
// here.
func (c *randomScene) evaluate(p probe) bool {
	verdict := c.verdicts.Evaluate(p.flow)
	return (!c.local(p.flow.Source) || verdict.Egress.Allowed()) && (!c.local(p.flow.Destination) || verdict.Ingress.Allowed())
}
