//go:build linux

package kube

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/moat-dev/moat/hack/cluster/machine"
	"github.com/moat-dev/moat/hack/cluster/progress"
)

const nodesTimeout = 2 * time.Minute

// nodeManifest is what bootstrap.yaml takes of a node.
type nodeManifest struct {
	Name     string
	PodCIDRs []netip.Prefix
}

// bootstrap stores the nodes and flanneld's role.
func bootstrap(r *machine.Record) error {
	var list []nodeManifest
	for _, n := range machine.Nodes(r.Options.Nodes) {
		list = append(list, nodeManifest{n.Name, n.PodCIDRs(r.Options.IPFamily)})
	}
	manifest, err := render("bootstrap.yaml", map[string]any{"Nodes": list})
	if err != nil {
		return err
	}
	_, err = Kubectl(r, manifest, "apply", "--server-side", "-f", "-")
	return err
}

// awaitNodes waits until pods can run: every node is Ready, and the service
// account that pods have by default is there.
func awaitNodes(r *machine.Record) error {
	err := progress.WaitUntil(nodesTimeout, func() (bool, error) {
		dead, err := machine.DeadProcesses()
		if err != nil {
			return false, err
		}
		for _, p := range dead {
			return false, p.HasEnded()
		}
		_, err = Kubectl(r, "", "wait", "--for=condition=Ready", "node", "--all", "--timeout=2s")
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the nodes: %w\n%s", err, unreadyNodes(r))
	}
	_, err = Kubectl(r, "", "wait", "--for=create", "serviceaccount/default", "--timeout=1m")
	return err
}

// unreadyNodes shows why nodes aren't Ready, and where to read on.
func unreadyNodes(r *machine.Record) string {
	conditions, _ := Kubectl(r, "", "get", "nodes", "-o",
		`jsonpath={range .items[*]}{.metadata.name}{": "}{.status.conditions[?(@.type=="Ready")].message}{"\n"}{end}`)
	return conditions + "logs: " + filepath.Join(machine.StateDir, "node-*", "logs")
}
