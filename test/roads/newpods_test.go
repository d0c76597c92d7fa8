package roads

import (
	"maps"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netns"
)

// newPod is the label of pods that are started on a road.
const newPod = "newpod"

// startNewPods starts a pod on every node. Its name says when.
func (r *run) startNewPods(when string) {
	r.t.Helper()
	var manifests []string
	for _, node := range nodes {
		manifests = append(manifests, podManifest(when+"-"+node, node, "kind: "+newPod))
	}
	r.input(strings.Join(manifests, "---\n"), "kubectl", "apply", "-f", "-")
}

// awaitNewPods waits until the pods that were started on the road run and have their
// network, and returns how long the last one of those took that were started after it.
func (r *run) awaitNewPods() time.Duration {
	r.t.Helper()
	r.do("kubectl", "-n", roadsNamespace, "wait", "-l", "kind="+newPod, "--for=condition=Ready", "pod", "--timeout=60s")
	begun := time.Now()
	missing := r.podAddresses("kind=" + newPod)
	if dark := r.road.outcome.dark; dark != "" {
		maps.DeleteFunc(missing, func(name string, _ netip.Addr) bool { return strings.HasSuffix(name, dark) })
	}
	for time.Since(begun) < networkWithin && len(missing) > 0 {
		for name, addr := range missing {
			if r.hasNetwork(name, addr) {
				delete(missing, name)
			}
		}
	}
	took := time.Since(begun)
	for name, addr := range missing {
		r.fault("the new pod %s (%s) has no network %.1f s after it was Ready", name, addr, took.Seconds())
	}
	return took
}

// hasNetwork says whether the world reaches a pod, and the pod the world.
func (r *run) hasNetwork(name string, addr netip.Addr) bool {
	ns, err := namespaceOf(addr)
	if err != nil {
		r.say("%s: %v", name, err)
		return false
	}
	defer func() { _ = ns.Close() }()
	return pingOnce(r.namespaces[world], addr) && pingOnce(ns, r.addresses[world])
}

// pingOnce says whether one ping is answered.
func pingOnce(ns netns.NsHandle, to netip.Addr) bool {
	answered := false
	err := within(ns, func() error {
		conn, err := net.ListenIP("ip4:icmp", nil)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		if _, err := conn.WriteTo(echoRequest(1), &net.IPAddr{IP: to.AsSlice()}); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(answersWithin)); err != nil {
			return err
		}
		for buffer := make([]byte, 1500); ; {
			_, from, err := conn.ReadFromIP(buffer)
			if err != nil {
				return err
			}
			if addr, _ := netip.AddrFromSlice(from.IP); addr.Unmap() == to && buffer[0] == echoReply {
				answered = true
				return nil
			}
		}
	})
	return err == nil && answered
}

// removeNewPods removes them at once.
func (r *run) removeNewPods() {
	r.t.Helper()
	r.do("kubectl", "-n", roadsNamespace, "delete", "pod", "-l", "kind in ("+newPod+",probe)", "--force", "--grace-period=0", "--ignore-not-found")
}
