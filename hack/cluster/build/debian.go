//go:build linux

package build

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/moat-dev/moat/hack/cluster/progress"
)

// packageFiles is a folder of downloaded Debian packages. They are read, never
// installed: the user's machine gets no service.
type packageFiles struct{ dir string }

func (p packageFiles) remove() { _ = os.RemoveAll(p.dir) }

// downloadPackages fetches the packages and the libraries that they need.
func downloadPackages(names ...string) (packageFiles, error) {
	for _, program := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return packageFiles{}, fmt.Errorf("the test images are made of Debian packages, and there is no %s here", program)
		}
	}
	if err := updatePackageLists(); err != nil {
		return packageFiles{}, err
	}
	closure, err := libraryClosure(names)
	if err != nil {
		return packageFiles{}, err
	}
	dir, err := os.MkdirTemp("", "moat-packages-")
	if err != nil {
		return packageFiles{}, fmt.Errorf("making a download folder: %w", err)
	}
	cmd := exec.Command("apt-get", append([]string{"download", "-q", "-o", "APT::Sandbox::User=root"}, closure...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return packageFiles{}, fmt.Errorf("downloading Debian packages: %w\n%s", err, progress.LastLines(string(out), 5))
	}
	return packageFiles{dir}, nil
}

var installLine = regexp.MustCompile(`(?m)^Inst (\S+)`)

// libraryClosure asks apt what it would install on an empty system and keeps
// the packages named and the libraries.
func libraryClosure(names []string) ([]string, error) {
	args := append([]string{"install", "-s", "--no-install-recommends", "-o", "Dir::State::status=/dev/null"}, names...)
	out, err := exec.Command("apt-get", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("asking apt what %s need: %w", strings.Join(names, " and "), err)
	}
	var closure []string
	for _, line := range installLine.FindAllStringSubmatch(string(out), -1) {
		name, _, _ := strings.Cut(line[1], ":")
		if strings.HasPrefix(name, "lib") || name == "zlib1g" || slices.Contains(names, name) {
			closure = append(closure, name)
		}
	}
	return closure, nil
}

// addPrograms adds the programs and libraries of all packages to the layer.
func (p packageFiles) addPrograms(l *layer) error {
	files, err := filepath.Glob(filepath.Join(p.dir, "*.deb"))
	if err != nil {
		return fmt.Errorf("listing packages: %w", err)
	}
	for _, file := range files {
		err := readPackage(file, func(header *tar.Header, content io.Reader) error {
			if header.Typeflag == tar.TypeDir || !isProgramOrLibrary(place(header.Name)) {
				return nil
			}
			return l.add(header, content)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// isProgramOrLibrary leaves out what a container doesn't need to run: texts,
// character tables and the like.
func isProgramOrLibrary(name string) bool {
	if strings.Contains(name, "/gconv/") || strings.Contains(name, "/locale/") {
		return false
	}
	for _, folder := range []string{"usr/bin/", "usr/sbin/", "usr/lib/", "usr/lib64/"} {
		if strings.HasPrefix(name, folder) {
			return true
		}
	}
	return false
}

// read returns the file of a package that has the given base name.
func (p packageFiles) read(packageName, base string) ([]byte, error) {
	files, err := filepath.Glob(filepath.Join(p.dir, packageName+"_*.deb"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("finding the package %s: not downloaded", packageName)
	}
	var found []byte
	err = readPackage(files[0], func(header *tar.Header, content io.Reader) error {
		if header.Typeflag != tar.TypeReg || path.Base(header.Name) != base || header.Mode&0o111 == 0 {
			return nil
		}
		var err error
		found, err = io.ReadAll(content)
		return err
	})
	if err == nil && found == nil {
		err = fmt.Errorf("finding %s: not in the package %s", base, packageName)
	}
	return found, err
}

// readPackage calls f for each entry of the package's file archive.
func readPackage(file string, f func(*tar.Header, io.Reader) error) error {
	cmd := exec.Command("dpkg-deb", "--fsys-tarfile", file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("reading a package: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("running dpkg-deb: %w", err)
	}
	readErr := readEntries(out, f)
	_, _ = io.Copy(io.Discard, out) // what follows the archive's end
	if err := cmd.Wait(); err != nil && readErr == nil {
		readErr = err
	}
	if readErr != nil {
		return fmt.Errorf("reading %s: %w", filepath.Base(file), readErr)
	}
	return nil
}

func readEntries(in io.Reader, f func(*tar.Header, io.Reader) error) error {
	archive := tar.NewReader(in)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(header, archive); err != nil {
			return err
		}
	}
}

// busyboxApplets asks busybox for the names that it answers to.
func busyboxApplets(program []byte) ([]string, error) {
	file, err := os.CreateTemp("", "moat-busybox-")
	if err != nil {
		return nil, fmt.Errorf("writing busybox: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.Write(program)
	if err := errors.Join(err, file.Chmod(0o755), file.Close()); err != nil {
		return nil, fmt.Errorf("writing busybox: %w", err)
	}
	cmd := exec.Command(file.Name(), "--list")
	cmd.Args[0] = "busybox" // it goes by the name that it is called by
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("asking busybox for its applets: %w", err)
	}
	return strings.Fields(string(out)), nil
}
