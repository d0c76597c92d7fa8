//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// debianPackage is a package that something needs. program is how its presence
// is told; without one the package database is asked.
type debianPackage struct{ program, name string }

// clusterPackages is what the nodes need beside the components, and what tests
// run on them and on the test host.
var clusterPackages = []debianPackage{
	{"iptables", "iptables"},
	{"ip6tables", "iptables"},
	{"ipset", "ipset"},
	{"conntrack", "conntrack"},
	{"ip", "iproute2"},
	{"mount", "mount"},
	{"ping", "iputils-ping"},
	{"nc", "netcat-openbsd"},
}

// installPackages installs what is missing where it may, and else says what to
// install.
func installPackages(packages []debianPackage) error {
	missing := missingPackages(packages)
	if len(missing) == 0 {
		return nil
	}
	install := "apt-get install " + strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("missing packages %s, and no apt-get here: install them by hand", strings.Join(missing, " "))
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("missing packages: run (as root) %s", install)
	}
	return during("installing Debian packages: "+strings.Join(missing, " "), nil, func() error {
		if err := updatePackageLists(); err != nil {
			return err
		}
		return apt(append([]string{"install", "-y", "-q", "--no-install-recommends"}, missing...)...)
	})
}

func missingPackages(packages []debianPackage) []string {
	var missing []string
	for _, p := range packages {
		if p.installed() || slices.Contains(missing, p.name) {
			continue
		}
		missing = append(missing, p.name)
	}
	return missing
}

func (p debianPackage) installed() bool {
	if p.program == "" {
		out, err := exec.Command("dpkg-query", "-W", "-f", "${db:Status-Status}", p.name).Output()
		return err == nil && string(out) == "installed"
	}
	_, err := exec.LookPath(p.program)
	return err == nil
}

// updatePackageLists fetches apt's package lists where there are none.
func updatePackageLists() error {
	entries, err := os.ReadDir("/var/lib/apt/lists")
	for _, entry := range entries {
		if strings.Contains(entry.Name(), "_Packages") {
			return nil
		}
	}
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("reading apt's package lists: %w", err)
	}
	return apt("update", "-q")
}

func apt(args ...string) error {
	cmd := exec.Command("apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running apt-get %s: %w\n%s", strings.Join(args, " "), err, lastLines(string(out), 10))
	}
	return nil
}
