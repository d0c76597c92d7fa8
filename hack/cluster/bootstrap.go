//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"time"
)

const nodesTimeout = 2 * time.Minute

// nodeManifest is what bootstrap.yaml takes of a node.
type nodeManifest struct {
	Name     string
	PodCIDRs []netip.Prefix
}

// bootstrap stores the nodes and flanneld's role.
func bootstrap(r *record) error {
	var list []nodeManifest
	for _, n := range nodes(r.Options.Nodes) {
		list = append(list, nodeManifest{n.name, n.podCIDRs(r.Options.IPFamily)})
	}
	manifest, err := render("bootstrap.yaml", map[string]any{"Nodes": list})
	if err != nil {
		return err
	}
	_, err = kubectl(r, manifest, "apply", "--server-side", "-f", "-")
	return err
}

// awaitNodes waits until pods can run: every node is Ready, and the service
// account that pods have by default is there.
func awaitNodes(r *record) error {
	err := waitUntil(nodesTimeout, func() (bool, error) {
		dead, err := deadProcesses()
		if err != nil {
			return false, err
		}
		for _, p := range dead {
			return false, p.hasEnded()
		}
		_, err = kubectl(r, "", "wait", "--for=condition=Ready", "node", "--all", "--timeout=2s")
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the nodes: %w\n%s", err, unreadyNodes(r))
	}
	_, err = kubectl(r, "", "wait", "--for=create", "serviceaccount/default", "--timeout=1m")
	return err
}

// unreadyNodes shows why nodes aren't Ready, and where to read on.
func unreadyNodes(r *record) string {
	conditions, _ := kubectl(r, "", "get", "nodes", "-o",
		`jsonpath={range .items[*]}{.metadata.name}{": "}{.status.conditions[?(@.type=="Ready")].message}{"\n"}{end}`)
	return conditions + "logs: " + filepath.Join(stateDir, "node-*", "logs")
}
