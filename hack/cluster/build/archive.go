//go:build linux

package build

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"
)

// layer is the one layer of an image. Its root has the merged layout of today's
// distributions: /bin, /sbin and /lib are links into /usr. An entry that is
// there already is kept, and missing parent folders are made.
type layer struct {
	content bytes.Buffer
	tar     *tar.Writer
	has     map[string]bool
}

func newLayer() *layer {
	l := &layer{has: map[string]bool{}}
	l.tar = tar.NewWriter(&l.content)
	return l
}

var mergedFolders = []string{"bin", "sbin", "lib", "lib64"}

// place moves names of the merged folders below usr.
func place(name string) string {
	name = strings.Trim(path.Clean("/"+name), "/")
	first, _, _ := strings.Cut(name, "/")
	for _, folder := range mergedFolders {
		if first == folder {
			return "usr/" + name
		}
	}
	return name
}

func (l *layer) dir(name string, mode fs.FileMode) error {
	return l.add(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: int64(mode)}, nil)
}

func (l *layer) file(name string, mode fs.FileMode, content []byte) error {
	return l.add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(mode), Size: int64(len(content))}, bytes.NewReader(content))
}

func (l *layer) link(name, target string) error {
	return l.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

// add writes an entry, owned by root.
func (l *layer) add(header *tar.Header, content io.Reader) error {
	name := place(header.Name)
	if name == "" || l.has[name] {
		return nil
	}
	if parent := path.Dir(name); parent != "." && !l.has[parent] {
		if err := l.dir(parent, 0o755); err != nil {
			return err
		}
	}
	l.has[name] = true
	entry := *header
	entry.Name, entry.Uid, entry.Gid, entry.Uname, entry.Gname = name, 0, 0, "", ""
	if entry.Typeflag == tar.TypeDir {
		entry.Name += "/"
	}
	if err := l.tar.WriteHeader(&entry); err != nil {
		return fmt.Errorf("adding %s to the layer: %w", name, err)
	}
	if content != nil {
		if _, err := io.Copy(l.tar, content); err != nil {
			return fmt.Errorf("adding %s to the layer: %w", name, err)
		}
	}
	return nil
}

// finish adds the links of the merged layout and returns the layer's archive.
func (l *layer) finish() ([]byte, error) {
	for _, folder := range mergedFolders {
		if !l.has["usr/"+folder] {
			continue
		}
		header := &tar.Header{Typeflag: tar.TypeSymlink, Name: folder, Linkname: "usr/" + folder, Mode: 0o777}
		if err := l.tar.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("adding the link %s to the layer: %w", folder, err)
		}
	}
	if err := l.tar.Close(); err != nil {
		return nil, fmt.Errorf("closing the layer: %w", err)
	}
	return l.content.Bytes(), nil
}

// writeArchive writes an image of one layer in the format of "docker save", under all
// of the names.
func writeArchive(file string, refs, command []string, layer []byte) error {
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Cmd": command, "Env": []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(layer)}},
	})
	if err != nil {
		return fmt.Errorf("encoding the image's configuration: %w", err)
	}
	configName, layerName := digest(config)+".json", digest(layer)+"/layer.tar"
	manifest, err := json.Marshal([]map[string]any{{"Config": configName, "RepoTags": refs, "Layers": []string{layerName}}})
	if err != nil {
		return fmt.Errorf("encoding the image's manifest: %w", err)
	}
	out, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("creating the image: %w", err)
	}
	defer func() { _ = out.Close() }()
	archive := tar.NewWriter(out)
	for _, entry := range []struct {
		name    string
		content []byte
	}{{layerName, layer}, {configName, config}, {"manifest.json", manifest}} {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: entry.name, Mode: 0o644, Size: int64(len(entry.content))}
		if err := archive.WriteHeader(header); err != nil {
			return fmt.Errorf("writing the image: %w", err)
		}
		if _, err := archive.Write(entry.content); err != nil {
			return fmt.Errorf("writing the image: %w", err)
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("writing the image: %w", err)
	}
	return nil
}

func digest(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }
