package iptables_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// fakePrograms puts shell scripts of the given names first, and alone, in PATH.
func fakePrograms(t *testing.T, scripts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, script := range scripts {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	}
	t.Setenv("PATH", dir)
	return dir
}

// fakeRunner has programs that behave as the scripts say.
func fakeRunner(t *testing.T, save, restore string) (*iptables.Runner, string) {
	t.Helper()
	dir := fakePrograms(t, map[string]string{
		"iptables-nft":         `echo "iptables v1.8.9 (nf_tables)"`,
		"iptables-nft-save":    save,
		"iptables-nft-restore": restore,
	})
	runner, err := iptables.NewRunner(iptables.NFT, ruleset.IPv4, prefix)
	require.NoError(t, err)
	return runner, dir
}

func TestMissingPrograms(t *testing.T) {
	const version = `echo "iptables v1.8.9 (nf_tables)"`
	for name, scripts := range map[string]map[string]string{
		"none":       {},
		"no save":    {"iptables-nft": version, "iptables-nft-restore": ""},
		"no restore": {"iptables-nft": version, "iptables-nft-save": ""},
		"other one":  {"iptables-legacy": version, "iptables-legacy-save": "", "iptables-legacy-restore": ""},
	} {
		t.Run(name, func(t *testing.T) {
			fakePrograms(t, scripts)
			_, err := iptables.NewRunner(iptables.NFT, ruleset.IPv4, prefix)
			require.ErrorIs(t, err, iptables.ErrMissing)
			require.ErrorContains(t, err, "iptables-nft")
		})
	}
}

func TestReadFails(t *testing.T) {
	runner, _ := fakeRunner(t, `for i in 1 2 3 4 5; do echo "line $i" >&2; done; exit 4`, "")
	_, err := runner.Read(context.Background())
	require.ErrorContains(t, err, "reading the mangle table: ")
	require.ErrorContains(t, err, "line 1; line 2; line 3")
	require.NotContains(t, err.Error(), "line 4")
	require.True(t, iptables.IsFailure(err))
	require.False(t, iptables.IsPermission(err))
}

func TestPermissionDenied(t *testing.T) {
	for _, message := range []string{
		"iptables-nft-save: Could not fetch rule set generation id: Permission denied (you must be root)",
		"getsockopt failed strangely: Permission denied",
	} {
		runner, _ := fakeRunner(t, `echo "`+message+`" >&2; exit 4`, "")
		_, err := runner.Read(context.Background())
		require.True(t, iptables.IsPermission(err), message)
	}
	require.False(t, iptables.IsPermission(nil))
}

// iptables-nft-save ends well where it can't print the table. Taken for an empty
// one, the hooks would be inserted again with every pass.
func TestReadRefusesATableThatCannotBePrinted(t *testing.T) {
	runner, _ := fakeRunner(t, "echo \"# Table \\`mangle' is incompatible, use 'nft' tool.\"", "")
	_, err := runner.Read(context.Background())
	require.ErrorIs(t, err, iptables.ErrIncompatible)
	require.ErrorContains(t, err, "nft")
}

func TestApplyIsOneRestore(t *testing.T) {
	runner, dir := fakeRunner(t, "", `cat="$(while IFS= read -r line; do echo "$line"; done)"; echo "$@" > "${0%/*}/args"; echo "$cat" > "${0%/*}/stdin"`)
	change := iptables.Diff(iptables.Table{}, someTable("a"))
	require.NoError(t, runner.Apply(context.Background(), change))

	args, err := os.ReadFile(filepath.Join(dir, "args"))
	require.NoError(t, err)
	require.Equal(t, "--noflush --wait 10\n", string(args))
	stdin, err := os.ReadFile(filepath.Join(dir, "stdin"))
	require.NoError(t, err)
	require.Equal(t, change.Script(), string(stdin))
}

func TestApplyFails(t *testing.T) {
	runner, _ := fakeRunner(t, "", `echo "iptables-restore v1.8.9: unknown option" >&2; exit 2`)
	err := runner.Apply(context.Background(), iptables.Diff(iptables.Table{}, someTable("a")))
	require.ErrorContains(t, err, "restoring the mangle table: ")
	require.ErrorContains(t, err, "unknown option")
	require.True(t, iptables.IsFailure(err))
}

// Permission errors, lock timeouts and kills are not refusals of the input.
func TestWhyAProgramFails(t *testing.T) {
	for name, row := range map[string]struct {
		restore                     string
		refusal, lock, isPermission bool
	}{
		"a rule is refused":     {`echo "iptables-restore: line 7 failed" >&2; exit 1`, true, false, false},
		"an option is unknown":  {`echo "unknown option" >&2; exit 2`, true, false, false},
		"it may not":            {`echo "Could not fetch rule set generation id: Permission denied (you must be root)" >&2; exit 4`, false, false, true},
		"the lock is held":      {`echo "Another app is currently holding the xtables lock. Perhaps you want to use the -w option?" >&2; exit 4`, false, true, false},
		"the lock can't be had": {`echo "Fatal: can't open lock file /run/xtables.lock: Permission denied" >&2; exit 4`, false, true, false},
		"it is killed":          {`kill -9 $$`, false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			runner, _ := fakeRunner(t, "", row.restore)
			err := runner.Apply(context.Background(), iptables.Diff(iptables.Table{}, someTable("a")))
			require.Error(t, err)
			err = errors.Join(errors.New("another"), fmt.Errorf("IPv4: %w", err))
			require.Equal(t, []bool{row.refusal, row.lock, row.isPermission},
				[]bool{iptables.IsRefusal(err), iptables.IsLock(err), iptables.IsPermission(err)})
			require.True(t, iptables.IsFailure(err))
		})
	}
	require.False(t, iptables.IsRefusal(nil))
	require.False(t, iptables.IsLock(errors.New("another")))
}

// A program that hangs is ended, with what it started: that would keep its pipes open.
func TestAProgramThatHangsIsEnded(t *testing.T) {
	runner, dir := fakeRunner(t, "", `/bin/sleep 60 & echo $! > "${0%/*}/child"; wait`)
	runner.Timeout = 300 * time.Millisecond
	start := time.Now()
	err := runner.Apply(context.Background(), iptables.Diff(iptables.Table{}, someTable("a")))
	require.ErrorContains(t, err, "after 300ms")
	require.Less(t, time.Since(start), 10*time.Second)
	require.False(t, iptables.IsRefusal(err))
	child, err := os.ReadFile(filepath.Join(dir, "child"))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		status, err := os.ReadFile("/proc/" + strings.TrimSpace(string(child)) + "/stat")
		return err != nil || strings.Contains(string(status), ") Z ")
	}, 5*time.Second, 10*time.Millisecond, "its child has ended too")
}

// Whether a network namespace has legacy tables is for the kernel to say, so what
// Detect makes of them is tested in the kernel tests.
func TestDetectNFT(t *testing.T) {
	const hint, rule = "echo :KUBE-IPTABLES-HINT - [0:0]", "echo; echo -A PREROUTING -j ACCEPT"
	for name, scripts := range map[string]map[string]string{
		"no programs":      nil,
		"nothing anywhere": {"iptables-nft-save": "", "iptables-legacy-save": ""},
		"hint in nft":      {"iptables-nft-save": hint, "iptables-legacy-save": rule + ";" + rule},
		"hint in both":     {"iptables-nft-save": hint, "iptables-legacy-save": hint},
		"more rules":       {"iptables-nft-save": rule + ";" + rule, "iptables-legacy-save": rule},
		"legacy fails":     {"iptables-nft-save": "", "iptables-legacy-save": hint + "; exit 3"},
	} {
		t.Run(name, func(t *testing.T) {
			fakePrograms(t, scripts)
			require.Equal(t, iptables.NFT, iptables.Detect(context.Background(), "MOAT-"))
		})
	}
}
