//go:build linux

package build

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/moat-dev/moat/hack/cluster/progress"
)

// DebianPackage is a package that something needs. It is there where Program is in PATH;
// without a Program the package database is asked.
type DebianPackage struct{ Program, Name string }

// ClusterPackages is what the nodes need beside the components, and what tests
// run on them and on the test host.
var ClusterPackages = []DebianPackage{
	{"iptables", "iptables"},
	{"ip6tables", "iptables"},
	{"ipset", "ipset"},
	{"conntrack", "conntrack"},
	{"ip", "iproute2"},
	{"mount", "mount"},
	{"ping", "iputils-ping"},
	{"nc", "netcat-openbsd"},
}

// InstallPackages installs what is missing where it may, and else says what to
// install.
func InstallPackages(packages []DebianPackage) error {
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
	return progress.During("installing Debian packages: "+strings.Join(missing, " "), nil, func() error {
		if err := updatePackageLists(); err != nil {
			return err
		}
		return apt(append([]string{"install", "-y", "-q", "--no-install-recommends"}, missing...)...)
	})
}

func missingPackages(packages []DebianPackage) []string {
	var missing []string
	for _, p := range packages {
		if p.installed() || slices.Contains(missing, p.Name) {
			continue
		}
		missing = append(missing, p.Name)
	}
	return missing
}

func (p DebianPackage) installed() bool {
	if p.Program == "" {
		out, err := exec.Command("dpkg-query", "-W", "-f", "${db:Status-Status}", p.Name).Output()
		return err == nil && string(out) == "installed"
	}
	_, err := exec.LookPath(p.Program)
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
		return fmt.Errorf("running apt-get %s: %w\n%s", strings.Join(args, " "), err, progress.LastLines(string(out), 10))
	}
	return nil
}
