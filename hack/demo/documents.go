package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moat-dev/moat/hack/localcluster"
)

// errDocument says that a document isn't true.
var errDocument = errors.New("a document's command printed something else than the document says")

// followDocuments runs every command of the documents' console blocks, as a reader
// would, on the demonstration's cluster, and compares what it prints.
func followDocuments(ctx context.Context, documents []string) error {
	shell, err := newShell(ctx)
	if err != nil {
		return err
	}
	d := &demo{shell: shell}
	d.provideMoat()
	d.output("kubectl", "delete", "namespace", "shop", "elsewhere", "--ignore-not-found", "--timeout=60s")
	programs, err := programsForReaders()
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(programs) }()
	for _, document := range documents {
		d.heading("The commands of " + document)
		d.follow(document, programs)
	}
	if d.err == nil {
		fmt.Printf("\nEvery command printed what its document says, in %.0f s.\n", time.Since(d.begun).Seconds())
	}
	return d.err
}

// provideMoat makes a cluster with Moat as a reader has one, or brings Moat up to date
// on the one that stands.
func (d *demo) provideMoat() {
	d.heading("A cluster with Moat")
	d.show("up")
	d.show("hack/image/build.sh", imageTag)
	d.show("load-image", localcluster.ImageFile(imageTag))
	d.show("helm", "upgrade", "--install", "moat", "charts/moat", "-n", systemNamespace, "--create-namespace",
		"--wait", "--timeout", "180s", "--set", "image.tag="+imageTag, "--set", "image.pullPolicy=Never")
	// The tag stays the same when the image changes.
	d.show("kubectl", "-n", systemNamespace, "rollout", "restart", "deployment/moat-operator", "daemonset/moat-agent")
	d.show("kubectl", "-n", systemNamespace, "rollout", "status", "deployment/moat-operator", "--timeout=60s")
	d.show("kubectl", "-n", systemNamespace, "rollout", "status", "daemonset/moat-agent", "--timeout=120s")
}

// programsForReaders makes a folder with a kubectl and a helm that speak to the
// cluster.
func programsForReaders() (string, error) {
	cluster, err := filepath.Abs(localcluster.Program)
	if err != nil {
		return "", fmt.Errorf("finding the cluster program: %w", err)
	}
	dir, err := os.MkdirTemp("", "moat-documents-")
	if err != nil {
		return "", fmt.Errorf("making a folder for programs: %w", err)
	}
	for _, name := range []string{"kubectl", "helm"} {
		script := fmt.Sprintf("#!/bin/sh\nexec '%s' %s \"$@\"\n", cluster, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			return "", fmt.Errorf("writing a program: %w", err)
		}
	}
	return dir, nil
}

// follow runs one document. What it prints has to agree at once where the document has
// waited for enforcement since its last change; else it may take as long as a change
// may.
func (d *demo) follow(document, programs string) {
	text, err := os.ReadFile(document)
	if err != nil && d.err == nil {
		d.err = fmt.Errorf("reading the document: %w", err)
	}
	entries := transcript(string(text))
	if len(entries) == 0 && d.err == nil {
		d.err = fmt.Errorf("%s has no block that begins with %s", document, consoleFence)
	}
	settled := false
	for _, e := range entries {
		if d.err != nil {
			return
		}
		limit := patience
		if settled || e.changes() {
			limit = 0
		}
		printed := d.read(e, programs, limit)
		if d.interrupted() {
			return
		}
		fmt.Printf("\n$ %s\n%s\n", e.command, strings.TrimRight(printed, "\n"))
		if !e.agrees(printed) {
			fmt.Printf("  <- DIFFERS from %s, line %d:\n%s\n", document, e.line, strings.Join(e.want, "\n"))
			d.err = fmt.Errorf("%s, line %d: %w", document, e.line, errDocument)
		}
		settled = !e.changes() && (settled || e.awaitsEnforcement())
	}
}

// read runs a command until what it prints agrees, or the limit has passed; once at
// least.
func (d *demo) read(e entry, programs string, limit time.Duration) string {
	for begun := time.Now(); ; {
		cmd := d.command([]string{"bash", "-c", e.command})
		cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"))
		// What fails prints why, and whether it should have is for the document to say.
		printed, _ := cmd.CombinedOutput()
		if e.agrees(string(printed)) || time.Since(begun) >= limit || d.ctx.Err() != nil {
			return string(printed)
		}
	}
}
