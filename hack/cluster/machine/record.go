//go:build linux

package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moat-dev/moat/hack/cluster/files"
)

// Record says what cluster there is on this machine. It is written before "up"
// makes anything and removed as the last thing by "down".
type Record struct {
	Checkout string    `json:"checkout"`
	Options  Options   `json:"options"`
	Since    time.Time `json:"since"`
	BootID   string    `json:"bootID"`

	// Complete is set when every node is Ready.
	Complete bool `json:"complete"`
	// Network is the one in use: hostgw where flanneld could not be had.
	Network string `json:"network"`
	// Snapshotter is containerd's: overlayfs, or native where overlayfs can't be mounted.
	Snapshotter string `json:"snapshotter"`
	// MountPoints are empty folders that "up" had to make outside of the state
	// folder, for the machines to mount their own over.
	MountPoints []string `json:"mountPoints,omitempty"`
	// MountedNetnsDir says that "up" made /run/netns a mount.
	MountedNetnsDir bool `json:"mountedNetnsDir,omitempty"`
	// Binaries are the programs that the cluster runs, by name.
	Binaries map[string]string `json:"binaries"`
}

var recordFile = filepath.Join(StateDir, "cluster.json")

// ReadRecord returns nil where there is no cluster.
func ReadRecord() (*Record, error) {
	data, err := os.ReadFile(recordFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the cluster's record: %w", err)
	}
	r := &Record{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("reading %s: %w; run %s down --force", recordFile, err, ProgramCommand)
	}
	return r, nil
}

func (r *Record) Write() error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the cluster's record: %w", err)
	}
	if err := os.MkdirAll(StateDir, 0o755); err != nil {
		return fmt.Errorf("making the state folder: %w", err)
	}
	return files.WriteFile(recordFile, string(data)+"\n")
}

// RequireCluster returns the cluster's record, for commands that enter its
// namespaces.
func RequireCluster() (*Record, error) {
	if err := RequireRoot(); err != nil {
		return nil, err
	}
	r, err := ReadRecord()
	switch {
	case err != nil:
		return nil, err
	case r == nil:
		return nil, fmt.Errorf("no cluster on this machine: run %s up", ProgramCommand)
	case r.BootID != BootID():
		return nil, fmt.Errorf("the machine was restarted since the cluster was started: run %s down, then up", ProgramCommand)
	}
	return r, nil
}

// Ended reports whether nothing of the cluster runs any more: the machine was restarted,
// or somebody killed all of it. What is left are files and empty namespaces, which
// anybody may remove.
func (r *Record) Ended() (bool, error) {
	if r.BootID != BootID() {
		return true, nil
	}
	processes, err := RecordedProcesses()
	if err != nil {
		return false, err
	}
	for _, p := range processes {
		if p.Alive() {
			return false, nil
		}
	}
	return len(processes) > 0 || !r.Complete, nil
}

// CheckOwner refuses to act on another checkout's cluster.
func (r *Record) CheckOwner(checkout string) error {
	if r.Checkout == checkout {
		return nil
	}
	return fmt.Errorf("the cluster on this machine was started from %s (since %s), and there can be only one:\n"+
		"run %s down there, or %s down --force here",
		r.Checkout, r.Since.Format(time.RFC3339), ProgramCommand, ProgramCommand)
}

// Machines are all that the cluster has a namespace for.
func (r *Record) Machines() []Machine {
	return append([]Machine{ControlPlane(), theWorld()}, Nodes(r.Options.Nodes)...)
}

// BootID names this run of the host's kernel. It is empty if the kernel doesn't say.
func BootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
