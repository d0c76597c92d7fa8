package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/moat-dev/moat/hack/localcluster"
)

// The chart that is upgraded and the one of this checkout. Both are given the image of
// this checkout, since no older one can be had without a registry: what is tested is
// the change of the chart, and that all agents and the operator are replaced.
var (
	previousChart = filepath.Join("hack", "demo", "previous", "moat-0.2.0.tgz")
	presentChart  = filepath.Join("charts", "moat")
)

// withUpgrade is the first act: Helm replaces everything while a policy is in force.
func (d *demo) withUpgrade() {
	d.step("An upgrade from chart 0.2.0: what is closed stays closed, what is open stays open")
	d.show("kubectl", "label", "pod", "test-np", "role=db")
	d.show("kubectl", "label", "pod", "busybox", "role=frontend")
	d.show("kubectl", "apply", "-f", manifest("appisolation.yaml"))
	d.waitEnforced()
	d.check(d.pingFromClient().answers(), d.pingFromNeighbour().isBlocked())

	allowed, forbidden := d.keepPinging("busybox"), d.keepPinging("neighbour")
	d.helmUpgrade(presentChart)
	d.compare("pings busybox -> test-np meanwhile", allAnswered, allowed())
	d.compare("pings neighbour -> test-np meanwhile", noneAnswered, forbidden())
	d.waitEnforced()
	d.show("helm", "history", "moat", "-n", systemNamespace)

	// Disabled, the policy goes once the new operator has the lead, which it looks for
	// every two seconds. A deletion is left to Kubernetes' garbage collector, which takes
	// up to half a minute to know the kinds of a new CRD.
	d.timeChange("neighbour", answered, func() {
		d.show("kubectl", "patch", "appisolation", "db", "--type=merge", "-p", `{"spec": {"mode": "Disabled"}}`)
		d.show("kubectl", "wait", "--for=delete", "networkpolicy/appiso-db", "--timeout=9s")
	})
	d.show("kubectl", "delete", "appisolation", "db")
	d.show("kubectl", "label", "pod", "test-np", "busybox", "role-")
}

// withHelmTest runs the chart's own test.
func (d *demo) withHelmTest() {
	d.step("helm test: the chart proves that policies are enforced")
	command := []string{"helm", "test", "moat", "-n", systemNamespace, "--logs", "--timeout", "150s"}
	d.say("\n$ %s", localcluster.Typed(command))
	output := d.output(command...)
	d.say("%s", output)
	verdict := "no word of it"
	if strings.Contains(output, testPassed) {
		verdict = testPassed
	}
	d.compare("helm test", testPassed, verdict)
	d.say("waiting until what the test made is gone with it")
	left := d.output("kubectl", "get", "pods,appisolations", "-n", systemNamespace, "-l", "isolation.moat.dev/test", "-o", "name")
	for begun := time.Now(); left != "" && d.err == nil && time.Since(begun) < cleanWithin; {
		time.Sleep(lookAgain)
		left = d.output("kubectl", "get", "pods,appisolations", "-n", systemNamespace, "-l", "isolation.moat.dev/test", "-o", "name")
	}
	d.compare("left of the test", "none", leftOf(left))
}

// testPassed is what the test says at its end.
const testPassed = "AppIsolations are enforced"

// pingScript pings until its input ends, and then prints what became of the pings.
const pingScript = `ping -i 0.05 %s & pid=$!
echo started
read -r end
kill -INT $pid
wait $pid`

// keepPinging pings db from a pod until the returned function is called, which says
// what became of the pings.
func (d *demo) keepPinging(pod string) (end func() string) {
	if d.err != nil {
		return func() string { return "" }
	}
	cmd := d.command([]string{"kubectl", "exec", "-i", pod, "--", "sh", "-c", fmt.Sprintf(pingScript, d.dbIP)})
	in, out, err := openPipes(cmd)
	if err == nil {
		_, err = out.ReadString('\n')
	}
	d.fail(cmd.Args, err, "")
	return func() string {
		if d.err != nil {
			return ""
		}
		_ = in.Close()
		var output bytes.Buffer
		_, err := output.ReadFrom(out)
		_ = cmd.Wait() // ping's own code says whether anybody answered
		d.fail(cmd.Args, err, output.String())
		return judgePings(output.String())
	}
}

const (
	allAnswered  = "all answered"
	noneAnswered = "none answered"

	// pingsAtLeast is how many pings an upgrade sees: it takes seconds.
	pingsAtLeast = 40
)

var countPattern = regexp.MustCompile(`(\d+) packets transmitted, (\d+) (?:packets )?received`)

// judgePings reads the numbers that ping prints at its end. The last ping may have been
// on its way then.
func judgePings(output string) string {
	counts := countPattern.FindStringSubmatch(output)
	if counts == nil {
		return "ping printed no numbers: " + output
	}
	sent, err := strconv.Atoi(counts[1])
	if err != nil {
		return err.Error()
	}
	received, err := strconv.Atoi(counts[2])
	switch {
	case err != nil:
		return err.Error()
	case sent < pingsAtLeast:
		return fmt.Sprintf("only %d pings", sent)
	case received == 0:
		return noneAnswered
	case sent-received <= 1:
		return allAnswered
	}
	return fmt.Sprintf("%d of %d answered", received, sent)
}
