//go:build linux

package build

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/moat-dev/moat/hack/cluster/progress"
)

// Binaries makes the named components and binaries available, building
// what is neither cached nor ready on the machine, and returns name -> path.
func Binaries(names []string) (map[string]string, error) {
	selection, err := selectBinaries(names)
	if err != nil {
		return nil, err
	}
	checkout, err := FindCheckout()
	if err != nil {
		return nil, err
	}
	paths := map[string]string{}
	for _, w := range selection {
		if err := w.provide(checkout, paths); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// provide adds the paths of the binaries wanted, and builds those that are
// missing. Two builds of one component wait for each other.
func (w wanted) provide(checkout string, paths map[string]string) error {
	version, err := w.version(checkout)
	if err != nil {
		return err
	}
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	dir := filepath.Join(cache, "bin", w.name+"-"+version)
	missing := w.locate(dir, version, paths)
	if len(missing) == 0 {
		return nil
	}
	unlock, err := lockBuild(filepath.Join(cache, "bin"), w.name)
	if err != nil {
		return err
	}
	defer unlock()
	if missing = w.locate(dir, version, paths); len(missing) == 0 {
		return nil
	}
	if err := w.build(checkout, version, dir, missing); err != nil {
		return err
	}
	w.locate(dir, version, paths)
	return nil
}

// locate fills in the paths of what is cached or ready and returns the rest.
func (w wanted) locate(dir, version string, paths map[string]string) []binary {
	var missing []binary
	for _, b := range w.only(w.names) {
		cached := filepath.Join(dir, b.name)
		if isProgram(cached) {
			paths[b.name] = cached
		} else if ready, ok := readyBinary(w.component, b, version); ok {
			progress.Say("using %s, which is %s", ready, version)
			paths[b.name] = ready
		} else {
			missing = append(missing, b)
		}
	}
	return missing
}

// lockBuild waits for another build of the component, if one runs.
func lockBuild(dir, component string) (func(), error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the cache folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "."+component+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the build lock: %w", err)
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = progress.During("waiting for another build of "+component, nil, func() error {
			return syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
		})
	}
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("taking the build lock: %w", err)
	}
	return func() { _ = lock.Close() }, nil
}

// build runs one "go build" for the binaries and moves them into dir when all
// are whole, so that an interrupted build leaves nothing that looks finished.
func (c component) build(checkout, version, dir string, binaries []binary) error {
	if err := InstallPackages(c.packages); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the cache folder: %w", err)
	}
	temp, err := os.MkdirTemp(dir, ".build-")
	if err != nil {
		return fmt.Errorf("making a build folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(temp) }()

	begun, names := time.Now(), binaryNames(binaries)
	log := &buildLog{}
	err = progress.During(fmt.Sprintf("building %s %s: %s", c.name, version, names), log.progress, func() error {
		return c.goBuild(checkout, version, temp, binaries, log)
	})
	if err != nil {
		return fmt.Errorf("building %s: %w\n%s", c.name, err, log.tail())
	}
	for _, b := range binaries {
		if err := os.Rename(filepath.Join(temp, builtName(b.pkg)), filepath.Join(dir, b.name)); err != nil {
			return fmt.Errorf("storing %s: %w", b.name, err)
		}
	}
	progress.Say("built %s in %s", names, time.Since(begun).Round(time.Second))
	return nil
}

func (c component) goBuild(checkout, version, out string, binaries []binary, log *buildLog) error {
	ldflags := "-s -w"
	if c.versionVar != "" {
		ldflags += " -X " + c.versionVar + "=" + version
	}
	args := []string{"build", "-v", "-buildvcs=false", "-ldflags", ldflags, "-tags", c.tags, "-o", out + "/"}
	for _, b := range binaries {
		args = append(args, b.pkg)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = c.dir(checkout)
	cgo := "CGO_ENABLED=0"
	if c.cgo {
		cgo = "CGO_ENABLED=1"
	}
	cmd.Env = append(os.Environ(), cgo, "GOFLAGS=-mod=readonly", "GOWORK=off")
	cmd.Stdout, cmd.Stderr = log, log
	return cmd.Run()
}

// builtName is the file that "go build" makes of a package: the last element of
// its path, a major version aside.
func builtName(pkg string) string {
	dir, base := path.Split(pkg)
	if len(base) > 1 && base[0] == 'v' && strings.Trim(base[1:], "0123456789") == "" {
		return path.Base(dir)
	}
	return base
}

func binaryNames(binaries []binary) string {
	var names []string
	for _, b := range binaries {
		names = append(names, b.name)
	}
	return strings.Join(names, ", ")
}
