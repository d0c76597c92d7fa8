package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/moat-dev/moat/hack/localcluster"
)

const (
	imageTag        = "dev"
	systemNamespace = "moat-system"

	// Addresses of the host outside of the cluster: the one that db may reach,
	// one in the policy's ipBlock, and one in that block's exception.
	upstream        = "10.0.0.10"
	outsider        = "172.17.0.10"
	exceptedOutside = "172.17.1.10"
)

// demo is one run of the demonstration.
type demo struct {
	*shell
	rows      []row
	listeners *exec.Cmd
	// The addresses of the pods test-np and busybox.
	dbIP, clientIP string
}

func manifest(name string) string {
	return filepath.Join("hack", "demo", "manifests", name)
}

// setUp makes everything that the walk-through needs. On a cluster that stands
// already it starts over, with the image as it is now.
func (d *demo) setUp() {
	d.say("kubectl and helm mean, in all that follows: hack/cluster.sh kubectl, hack/cluster.sh helm")
	d.ensurePing()

	d.heading("A cluster of three nodes, with Flannel")
	d.show("up")
	d.show("kubectl", "get", "nodes", "-o", "wide")

	d.heading("Moat, from its image and its chart")
	d.show("hack/image/build.sh", imageTag)
	d.show("load-image", localcluster.ImageFile(imageTag))
	d.installPrevious()

	d.heading("The walk-through's pods")
	d.removeOwnObjects()
	d.startPods()
	d.startListeners()
}

// installPrevious installs the version before this one, which the first act upgrades.
func (d *demo) installPrevious() {
	running := d.output("kubectl", "get", "pods", "-n", systemNamespace, "-o", "name")
	d.helmUpgrade(previousChart)
	if strings.Contains(running, "pod/") {
		d.show("kubectl", "-n", systemNamespace, "rollout", "restart", "deployment/moat-operator", "daemonset/moat-agent")
		d.show("kubectl", "-n", systemNamespace, "rollout", "status", "deployment/moat-operator", "--timeout=60s")
		d.show("kubectl", "-n", systemNamespace, "rollout", "status", "daemonset/moat-agent", "--timeout=60s")
	}
	d.show("kubectl", "get", "pods", "-n", systemNamespace, "-o", "wide")
}

// helmUpgrade installs or upgrades Moat as a user does; but all agents at once: that is
// quicker, and no agent is there to help another.
func (d *demo) helmUpgrade(chart string) {
	d.show("helm", "upgrade", "--install", "moat", chart, "-n", systemNamespace, "--create-namespace",
		"--wait", "--timeout", "90s", "--set", "image.tag="+imageTag, "--set", "image.pullPolicy=Never", "--set", "agent.maxUnavailable=100%")
}

// removeOwnObjects clears what an earlier run left, and nothing else.
func (d *demo) removeOwnObjects() {
	for _, name := range []string{"appisolation", "test-network-policy", "starts", "pods", "namespace"} {
		d.output("kubectl", "delete", "-f", manifest(name+".yaml"), "--ignore-not-found", "--timeout=60s")
	}
}

func (d *demo) startPods() {
	d.show("kubectl", "apply", "-f", manifest("namespace.yaml"))
	// A pod is refused as long as its namespace has no service account.
	for _, namespace := range []string{"default", "myproject"} {
		d.output("kubectl", "wait", "-n", namespace, "--for=create", "serviceaccount/default", "--timeout=30s")
	}
	d.show("kubectl", "apply", "-f", manifest("pods.yaml"))
	d.output("kubectl", "wait", "-n", "default", "--for=condition=Ready", "pod/test-np", "pod/busybox", "pod/neighbour", "--timeout=60s")
	d.output("kubectl", "wait", "-n", "myproject", "--for=condition=Ready", "pod/visitor", "--timeout=60s")
	d.show("kubectl", "get", "pods", "-o", "wide")
	d.dbIP = d.output("kubectl", "get", "pod", "test-np", "-o", "jsonpath={.status.podIP}")
	d.clientIP = d.output("kubectl", "get", "pod", "busybox", "-o", "jsonpath={.status.podIP}")
}

// startListeners serves, outside of the cluster, the ports that db tries.
func (d *demo) startListeners() {
	if d.err != nil {
		return
	}
	self, err := os.Executable()
	if err != nil {
		d.err = fmt.Errorf("finding this program: %w", err)
		return
	}
	cmd := d.command([]string{"exec", "world", "--", self, listenCommand, upstream + ":5978", upstream + ":5979", outsider + ":5978"})
	cmd.Stderr = os.Stderr
	endWithParent(cmd)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		d.listeners = cmd
		_, err = bufio.NewReader(out).ReadString('\n')
	}
	if err != nil {
		d.err = fmt.Errorf("starting servers outside of the cluster: %w", err)
		return
	}
	d.say("\nOutside of the cluster, %[1]s serves TCP 5978 and 5979, and %[2]s serves TCP 5978", upstream, outsider)
}

func (d *demo) endListeners() {
	if d.listeners == nil {
		return
	}
	_ = d.listeners.Process.Signal(syscall.SIGTERM)
	_ = d.listeners.Wait()
}

// ensurePing installs ping where this machine has none; the probes from outside
// of the cluster use it.
func (d *demo) ensurePing() {
	if _, err := exec.LookPath("ping"); err == nil || d.err != nil {
		return
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		d.err = fmt.Errorf("this machine has no ping: install it (Debian's package is iputils-ping)")
		return
	}
	d.say("\nInstalling ping (Debian package iputils-ping)")
	d.output("sh", "-c", "apt-get install -y iputils-ping || { apt-get update && apt-get install -y iputils-ping; }")
}
