//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func loadImage(r *record, file string) error {
	what := fmt.Sprintf("importing %s on %d nodes", filepath.Base(file), r.Options.Nodes)
	return during(what, nil, func() error {
		return inParallel(nodes(r.Options.Nodes), func(n machine) error { return importImage(r, n, file) })
	})
}

// importImage gives an image archive to the node's containerd.
func importImage(r *record, n machine, file string) error {
	archive, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("opening the image: %w", err)
	}
	defer func() { _ = archive.Close() }()
	if err := ctr(r, n, archive, "images", "import", "--local", "--snapshotter", r.Snapshotter, "-"); err != nil {
		return fmt.Errorf("importing %s on %s: %w", file, n.name, err)
	}
	return nil
}

// ctr runs containerd's client on the node, in the namespace of Kubernetes.
func ctr(r *record, n machine, stdin io.Reader, args ...string) error {
	cmd := exec.Command(r.Binaries["ctr"], append([]string{"-n", "k8s.io"}, args...)...)
	cmd.Dir = "/"
	var output strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &output, &output
	return n.inside(func() error {
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("running ctr %s: %w: %s", args[0], err, lastLines(output.String(), 5))
		}
		return nil
	})
}
