package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/moat-dev/moat/hack/localcluster"
)

// tokenFile is where the kubelet puts a pod's token.
const tokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// withForgedReport is the fourth act: somebody has taken over node-1, and uses its
// agent's token to report for another node.
func (d *demo) withForgedReport() {
	d.step("The token of node-1's agent writes reports: its own node's, and another's")
	agent := d.output("kubectl", "get", "pods", "-n", systemNamespace, "-l", "app.kubernetes.io/component=agent",
		"--field-selector", "spec.nodeName=node-1", "-o", "name")
	token := d.output("kubectl", "exec", "-n", systemNamespace, agent, "--", "cat", tokenFile)
	dir, err := os.MkdirTemp("", "moat-demo-")
	if err != nil {
		d.fail([]string{"making a folder"}, err, "")
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	d.writeKubeconfig(kubeconfig, token)
	d.compare("doubts about the admission policies", "none", leftOf(d.output("kubectl", "get", "validatingadmissionpolicies",
		"-o", "jsonpath={.items[*].status.typeChecking.expressionWarnings}")))
	d.compare("report for node-1", "accepted", d.forge(dir, kubeconfig, "node-1"))
	d.compare("report for node-2", "refused", d.forge(dir, kubeconfig, "node-2"))
}

// writeKubeconfig is the cluster's kubeconfig for somebody else.
func (d *demo) writeKubeconfig(path, token string) {
	admin := d.output(localcluster.Program, "kubeconfig")
	if d.err != nil {
		return
	}
	config, err := clientcmd.LoadFromFile(admin)
	if err == nil {
		for name := range config.AuthInfos {
			config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
		}
		err = clientcmd.WriteToFile(*config, path)
	}
	d.fail([]string{"writing", path}, err, "")
}

// forge stores a node's report as it is, with the token of an agent, and says what
// became of that. The node's own agent may write at the same time.
func (d *demo) forge(dir, kubeconfig, node string) string {
	const changedMeanwhile, tries = "the object has been modified", 5
	for range tries {
		report := d.output("kubectl", "get", "nodeenforcement", node, "-o", "json")
		file := filepath.Join(dir, node+".json")
		if d.err == nil {
			d.fail([]string{"writing", file}, os.WriteFile(file, []byte(report), 0o600), "")
		}
		if d.err != nil {
			return ""
		}
		command := []string{"kubectl", "--kubeconfig=" + kubeconfig, "replace", "--subresource=status", "-f", file}
		out, err := d.command(command).CombinedOutput()
		text := strings.TrimSpace(string(out))
		if strings.Contains(text, changedMeanwhile) {
			continue
		}
		d.say("\n$ %s\n%s", localcluster.Typed(command), text)
		switch {
		case err == nil:
			return "accepted"
		case strings.Contains(text, "the agent of node node-1 may write the NodeEnforcement of its own node alone, not "+node):
			return "refused"
		}
		return text
	}
	return fmt.Sprintf("changed meanwhile, %d times", tries)
}

// withUninstall is the last act: Moat goes, and every node is as it was before.
func (d *demo) withUninstall() {
	d.step("helm uninstall: every agent cleans its node, and what was forbidden passes")
	d.show("kubectl", "label", "pod", "busybox", "role-")
	d.show("kubectl", "apply", "-f", manifest("appisolation.yaml"))
	d.waitEnforced()
	d.check(d.pingFromClient().isBlocked(), d.toOtherPort().isBlocked())

	d.show("helm", "uninstall", "moat", "-n", systemNamespace)
	left := d.waitForCleanNodes("node-1", "node-2", "node-3")
	for _, node := range slices.Sorted(maps.Keys(left)) {
		d.compare("rules and sets of Moat on "+node, "none", leftOf(left[node]))
	}
	d.check(d.everythingOpen()...)
	d.say("\nWhat users wrote stays. No operator is left to say of it what is true: a status is its last word.")
	d.show("kubectl", "get", "appisolation,networkpolicy")
	d.show("kubectl", "delete", "nodeenforcements", "--all") // the last words of the agents

	// The policy stays as long as its AppIsolation, and no longer.
	d.show("kubectl", "delete", "appisolation", "db")
	d.output("kubectl", "wait", "--for=delete", "networkpolicy/appiso-db", "--timeout=30s")
}

const (
	// cleanWithin is how long the agents may take: they watch for some 15 seconds whether
	// Moat comes back, and have 60 seconds to end.
	cleanWithin = time.Minute
	lookAgain   = 2 * time.Second
)

// waitForCleanNodes waits until nothing of Moat is on the nodes, and says so meanwhile.
// It returns what each node has in the end.
func (d *demo) waitForCleanNodes(nodes ...string) map[string]string {
	d.say("\nwaiting for the agents, which make sure that Moat doesn't come back and then clean their nodes")
	begun, left := time.Now(), map[string]string{}
	for d.err == nil {
		var unclean []string
		for _, node := range nodes {
			if left[node] = localcluster.Traces(d.output(localcluster.TracesCommand(node)...)); left[node] != "" {
				unclean = append(unclean, node)
			}
		}
		waited := time.Since(begun)
		if len(unclean) == 0 {
			d.say("  nothing of Moat is left on any node after %.0f s", waited.Seconds())
			return left
		}
		if waited > cleanWithin {
			return left
		}
		d.say("  %.0f s: rules are left on %s", waited.Seconds(), strings.Join(unclean, ", "))
		select {
		case <-d.ctx.Done():
		case <-time.After(lookAgain):
		}
		d.interrupted()
	}
	return left
}
