package dataplane

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
)

// Another program flushes a chain of Moat's in the moment after the agent wrote it, in a table
// that iptables can't print. What is there then can't be read back. It doesn't pass for what
// Moat wrote: the isolated pod is closed by the sync, or by the next one after it failed.
func TestAFlushBesideAnUnreadWriteIsRepaired(t *testing.T) {
	for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
		t.Run(string(backend), func(t *testing.T) {
			withoutExtension(t, "statistic")
			s := walkThroughScene(t, backend)
			s.label("test-np", map[string]string{"role": "db"})
			s.apply(walkThrough)
			s.sync()
			s.comeToRest()
			for _, program := range []string{"iptables", "ip6tables"} {
				s.damage(program + " -I FORWARD 1 -m statistic --mode random --probability 0.5 -j RETURN")
			}
			s.inspect()
			s.sync()
			require.Len(t, s.enforcer.unread, 2)
			s.requirePing(false, "neighbour", "test-np")

			flushed := s.flushAfterWrite("iptables", "ip6tables")
			s.apply(strings.Replace(walkThrough, "port: 80", "port: 81", 1))
			err := s.trySync()
			require.NoFileExists(t, flushed["iptables"], "it flushed")
			require.NoFileExists(t, flushed["ip6tables"], "it flushed")
			if err != nil {
				require.ErrorContains(t, err, "another program changed rules while they were written")
				s.sync()
			}
			s.requirePing(false, "neighbour", "test-np")
			s.requirePing(true, "project", "test-np")
		})
	}
}

// flushAfterWrite puts a program in front of each iptables-restore that runs it, and flushes
// MOAT-INGRESS after the first that writes the chain. A file goes with that.
func (s *scene) flushAfterWrite(programs ...string) map[string]string {
	s.t.Helper()
	dir, files := s.t.TempDir(), map[string]string{}
	for _, program := range programs {
		command := strings.Replace(string(s.enforcer.backend), "iptables", program, 1)
		restore, err := exec.LookPath(command + "-restore")
		require.NoError(s.t, err)
		files[program] = filepath.Join(dir, program)
		require.NoError(s.t, os.WriteFile(files[program], nil, 0o600))
		script := fmt.Sprintf(`#!/bin/sh
input=$(cat)
echo "$input" | %s "$@" || exit
case "$input" in *":MOAT-INGRESS "*)
	if [ -e %[2]s ]; then
		rm %[2]s
		env -u XTABLES_LIBDIR %s -w -t mangle -F MOAT-INGRESS
	fi
esac
`, restore, files[program], command)
		require.NoError(s.t, os.WriteFile(filepath.Join(dir, command+"-restore"), []byte(script), 0o755))
	}
	s.t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	s.enforcer.runners = nil // finds its programs again
	return files
}
