package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Pods that start at the same time on node-1, of each kind.
const startsOfEachKind = 5

// addressesAhead is how many addresses are pinged before a pod has them.
const addressesAhead = 3*startsOfEachKind + 5

// startsNamespace and what is on node-1 of its network plugin.
const (
	startsNamespace  = "starts"
	networkOfNode1   = "/var/lib/cni/networks/cbr0"
	lastReservedFile = "last_reserved_ip.0"
)

// withPodStarts is its third act: pods start while their addresses-to-be are pinged from
// another node every millisecond. Those that a policy closes never answer; those
// without policy do, which shows that pings arrive from the first moment on; and those
// that may call one neighbour only reach it with the first thing that they do.
func (d *demo) withPodStarts() {
	d.step("Pods that start under a policy: closed from their first packet on")
	d.compare("starts on node-1", "RuntimeConnected", d.output("kubectl", "get", "nodeenforcement", "node-1",
		"-o", `jsonpath={.status.conditions[?(@.type=="PodStartGuarded")].reason}`))
	d.show("kubectl", "apply", "-f", manifest("starts.yaml"))
	d.output("kubectl", "wait", "-n", startsNamespace, "--for=create", "serviceaccount/default", "--timeout=30s")
	end := d.startPinger(d.addressesAhead())
	d.startsPods()
	tallies := end()
	for _, kind := range []struct{ name, want string }{{"closed", "never"}, {"open", "answers"}} {
		d.compare(fmt.Sprintf("pings of %d %s pods", startsOfEachKind, kind.name), kind.want, d.judgeTallies(kind.name, tallies))
	}
	d.compare("first connections without a lost packet", fmt.Sprintf("%d of %[1]d", startsOfEachKind), d.arrived())
	d.show("kubectl", "delete", "-f", manifest("starts.yaml"), "--timeout=120s")
}

// addressesAhead returns the addresses that node-1 gives to its next pods.
func (d *demo) addressesAhead() []string {
	used := strings.Fields(d.output("exec", "node-1", "--", "ls", networkOfNode1))
	last := d.output("exec", "node-1", "--", "cat", networkOfNode1+"/"+lastReservedFile)
	addr, err := netip.ParseAddr(last)
	if err != nil {
		d.fail([]string{"reading", lastReservedFile}, err, last)
		return nil
	}
	bytes := addr.As4()
	var ahead []string
	for len(ahead) < addressesAhead {
		bytes[3]++
		if bytes[3] == 255 {
			bytes[3] = 2 // behind the network's own address and the bridge's
		}
		if next := netip.AddrFrom4(bytes).String(); !slices.Contains(used, next) {
			ahead = append(ahead, next)
		}
	}
	return ahead
}

// startPinger pings from node-2 until the returned function is called, which returns
// what became of the pings to each address.
func (d *demo) startPinger(addresses []string) (end func() map[string]tally) {
	if d.err != nil {
		return func() map[string]tally { return nil }
	}
	self, err := os.Executable()
	if err != nil {
		d.err = fmt.Errorf("finding this program: %w", err)
		return func() map[string]tally { return nil }
	}
	cmd := d.command(append([]string{"exec", "node-2", "--", self, pingerCommand}, addresses...))
	in, out, err := openPipes(cmd)
	if err == nil {
		_, err = out.ReadString('\n')
	}
	d.fail(cmd.Args, err, "")
	return func() map[string]tally {
		tallies := map[string]tally{}
		if d.err != nil {
			return tallies
		}
		err := in.Close()
		if err == nil {
			err = json.NewDecoder(out).Decode(&tallies)
		}
		_ = cmd.Wait()
		d.fail(cmd.Args, err, "")
		return tallies
	}
}

// openPipes starts a command whose input and output are at hand.
func openPipes(cmd *exec.Cmd) (io.WriteCloser, *bufio.Reader, error) {
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	return in, bufio.NewReader(out), cmd.Start()
}

// startsPods starts pods of all kinds at once and waits until they run, or have ended.
func (d *demo) startsPods() {
	if d.err != nil {
		return
	}
	template, err := os.ReadFile(manifest("starts-pod.yaml"))
	if err != nil {
		d.err = fmt.Errorf("reading a manifest: %w", err)
		return
	}
	neighbour := d.output("kubectl", "get", "pod", "test-np", "-o", "jsonpath={.status.podIP}")
	var pods []string
	for i := range startsOfEachKind {
		for _, kind := range []string{"closed", "open", "caller"} {
			pods = append(pods, strings.NewReplacer(
				"NAME", fmt.Sprintf("%s-%d", kind, i), "KIND", kind, "NEIGHBOUR", neighbour).Replace(string(template)))
		}
	}
	d.say("\n$ kubectl apply -f - # %d pods from %s", len(pods), manifest("starts-pod.yaml"))
	cmd := d.command([]string{"kubectl", "apply", "-f", "-"})
	cmd.Stdin = strings.NewReader(strings.Join(pods, "---\n"))
	out, err := cmd.CombinedOutput()
	d.fail(cmd.Args, err, string(out))
	d.show("kubectl", "wait", "-n", startsNamespace, "-l", "kind in (open, closed)", "--for=condition=Ready", "pod", "--timeout=120s")
	d.output("kubectl", "wait", "-n", startsNamespace, "-l", "kind=caller", "--for=jsonpath={.status.containerStatuses[0].state.terminated}", "pod", "--timeout=60s")
}

// judgeTallies says whether all pods of a kind answered pings, or none ever did.
func (d *demo) judgeTallies(kind string, tallies map[string]tally) string {
	addresses := strings.Fields(d.output("kubectl", "get", "pods", "-n", startsNamespace, "-l", "kind="+kind, "-o", "jsonpath={.items[*].status.podIP}"))
	sent, answered, silent := 0, 0, 0
	for _, addr := range addresses {
		t := tallies[addr]
		if t.Sent == 0 {
			return addr + " wasn't pinged"
		}
		sent, answered = sent+t.Sent, answered+t.Answered
		if t.Answered == 0 {
			silent++
		}
	}
	d.say("  -> %s: %d pings, %d answers", kind, sent, answered)
	switch {
	case len(addresses) != startsOfEachKind:
		return fmt.Sprintf("%d pods", len(addresses))
	case answered == 0:
		return "never"
	case silent == 0:
		return "answers"
	}
	return fmt.Sprintf("%d silent", silent)
}

// arrived counts the callers whose first connection lost no packet.
func (d *demo) arrived() string {
	codes := strings.Fields(d.output("kubectl", "get", "pods", "-n", startsNamespace, "-l", "kind=caller",
		"-o", "jsonpath={.items[*].status.containerStatuses[0].state.terminated.exitCode}"))
	good := 0
	for _, code := range codes {
		if code == "0" {
			good++
		}
	}
	return fmt.Sprintf("%d of %d", good, len(codes))
}
