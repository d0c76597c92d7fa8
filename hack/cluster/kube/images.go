//go:build linux

package kube

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/moat-dev/moat/hack/cluster/machine"
	"github.com/moat-dev/moat/hack/cluster/progress"
)

// LoadImage gives a docker-archive file to the containerd of every node.
func LoadImage(r *machine.Record, file string) error {
	what := fmt.Sprintf("importing %s on %d nodes", filepath.Base(file), r.Options.Nodes)
	return progress.During(what, nil, func() error {
		return progress.InParallel(machine.Nodes(r.Options.Nodes), func(n machine.Machine) error { return importImage(r, n, file) })
	})
}

// importImage gives an image archive to the node's containerd.
func importImage(r *machine.Record, n machine.Machine, file string) error {
	archive, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("opening the image: %w", err)
	}
	defer func() { _ = archive.Close() }()
	if err := ctr(r, n, archive, "images", "import", "--local", "--snapshotter", r.Snapshotter, "-"); err != nil {
		return fmt.Errorf("importing %s on %s: %w", file, n.Name, err)
	}
	return nil
}

// ctr runs containerd's client on the node, in the namespace of Kubernetes.
func ctr(r *machine.Record, n machine.Machine, stdin io.Reader, args ...string) error {
	cmd := exec.Command(r.Binaries["ctr"], append([]string{"-n", "k8s.io"}, args...)...)
	cmd.Dir = "/"
	var output strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &output, &output
	return n.Inside(func() error {
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("running ctr %s: %w: %s", args[0], err, progress.LastLines(output.String(), 5))
		}
		return nil
	})
}
