//go:build linux

package build

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	_ "embed"

	"github.com/moat-dev/moat/hack/cluster/files"
	"github.com/moat-dev/moat/hack/cluster/progress"
)

// PauseImage is the one that containerd is told to make sandboxes of.
const PauseImage = "registry.k8s.io/pause:3.10"

// image is a test image that is made without a registry.
type image struct {
	name    string   // of the cached file
	refs    []string // with the registry that Docker's short names stand for
	command []string
	// recipe is everything that decides what the image holds; a change of it
	// makes the cached image stale.
	recipe string
	fill   func(layer *layer) error
}

var (
	//go:embed pause/main.go
	pauseSource string
	//go:embed nginx.conf
	nginxConfig string
)

var testImages = []image{
	{"pause", []string{PauseImage}, []string{"/pause"}, pauseSource, fillPause},
	// By the second name the documents' manifests run here as they are.
	{"busybox", []string{"docker.io/library/busybox:local", "docker.io/library/busybox:stable"}, []string{"/bin/sh"}, "2", fillBusybox},
	{"nginx", []string{"docker.io/library/nginx:local"}, []string{"/usr/sbin/nginx", "-g", "daemon off;"}, "2" + nginxConfig, fillNginx},
}

// Images returns the archives of the test images, and makes the missing.
func Images() ([]string, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "images")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the image folder: %w", err)
	}
	unlock, err := lockBuild(dir, "images")
	if err != nil {
		return nil, err
	}
	defer unlock()
	var archives []string
	for _, i := range testImages {
		sum := sha256.Sum256([]byte(i.recipe))
		file := filepath.Join(dir, fmt.Sprintf("%s-%x.tar", i.name, sum[:4]))
		if !files.Exists(file) {
			err := progress.During("building the image "+i.name, nil, func() error { return i.build(file) })
			if err != nil {
				return nil, fmt.Errorf("building the image %s: %w", i.name, err)
			}
		}
		archives = append(archives, file)
	}
	return archives, nil
}

func (i image) build(file string) error {
	layer := newLayer()
	if err := i.fill(layer); err != nil {
		return err
	}
	content, err := layer.finish()
	if err != nil {
		return err
	}
	temp := file + ".new"
	if err := writeArchive(temp, i.refs, i.command, content); err != nil {
		return err
	}
	if err := os.Rename(temp, file); err != nil {
		return fmt.Errorf("storing the image: %w", err)
	}
	return nil
}

func fillPause(l *layer) error {
	checkout, err := FindCheckout()
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp("", "moat-pause-")
	if err != nil {
		return fmt.Errorf("making a build folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(temp) }()
	out := filepath.Join(temp, "pause")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, "./cluster/build/pause")
	cmd.Dir = filepath.Join(checkout, "hack")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building pause: %w\n%s", err, text)
	}
	program, err := os.ReadFile(out)
	if err != nil {
		return fmt.Errorf("reading pause: %w", err)
	}
	return l.file("pause", 0o755, program)
}

// fillBusybox adds Debian's static busybox under all of its names. Its wget takes
// no -T (it crashes): put "timeout 2" in front of it.
func fillBusybox(l *layer) error {
	packages, err := downloadPackages("busybox-static")
	if err != nil {
		return err
	}
	defer packages.remove()
	if err := addUsers(l); err != nil {
		return err
	}
	return addBusybox(l, packages)
}

func addBusybox(l *layer, packages packageFiles) error {
	program, err := packages.read("busybox-static", "busybox")
	if err != nil {
		return err
	}
	applets, err := busyboxApplets(program)
	if err != nil {
		return err
	}
	if err := l.file("usr/bin/busybox", 0o755, program); err != nil {
		return err
	}
	for _, applet := range applets {
		if err := l.link("usr/bin/"+applet, "busybox"); err != nil {
			return err
		}
	}
	return nil
}

// fillNginx adds Debian's nginx, the libraries that it needs, and busybox for
// ping and a shell.
func fillNginx(l *layer) error {
	packages, err := downloadPackages("nginx", "busybox-static")
	if err != nil {
		return err
	}
	defer packages.remove()
	if err := addUsers(l); err != nil {
		return err
	}
	if err := packages.addPrograms(l); err != nil {
		return err
	}
	if err := addBusybox(l, packages); err != nil {
		return err
	}
	for _, dir := range []string{"run", "var/lib/nginx", "var/log/nginx", "var/www"} {
		if err := l.dir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := l.file("var/www/index.html", 0o644, []byte("Welcome to nginx!\n")); err != nil {
		return err
	}
	return l.file("etc/nginx/nginx.conf", 0o644, []byte(nginxConfig))
}

func addUsers(l *layer) error {
	texts := map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"etc/group":  "root:x:0:\nnogroup:x:65534:\n",
	}
	for _, name := range []string{"etc/passwd", "etc/group"} {
		if err := l.file(name, 0o644, []byte(texts[name])); err != nil {
			return err
		}
	}
	for name, mode := range map[string]fs.FileMode{"tmp": 0o1777, "root": 0o700} {
		if err := l.dir(name, mode); err != nil {
			return err
		}
	}
	return nil
}
