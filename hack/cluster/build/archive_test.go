//go:build linux

package build

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPlaceMergesTheUsrFolders(t *testing.T) {
	for name, want := range map[string]string{
		"./bin/sh":        "usr/bin/sh",
		"/lib64/ld.so":    "usr/lib64/ld.so",
		"usr/lib/libc.so": "usr/lib/libc.so",
		"library/x":       "library/x",
		"../../etc/x":     "etc/x",
		"./":              "",
	} {
		require.Equal(t, want, place(name), name)
	}
}

func TestLayer(t *testing.T) {
	l := newLayer()
	require.NoError(t, l.file("./bin/busybox", 0o755, []byte("first")))
	require.NoError(t, l.file("usr/bin/busybox", 0o755, []byte("second")), "the first one stays")
	require.NoError(t, l.link("usr/bin/sh", "busybox"))
	content, err := l.finish()
	require.NoError(t, err)

	entries := readTar(t, content)
	require.Equal(t, "first", entries["usr/bin/busybox"].content)
	require.Equal(t, "busybox", entries["usr/bin/sh"].header.Linkname)
	require.Equal(t, "usr/bin", entries["bin"].header.Linkname)
	require.Contains(t, entries, "usr/bin/", "the folder of the files")
	require.NotContains(t, entries, "lib", "nothing is in it")
}

func TestWriteArchive(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image.tar")
	require.NoError(t, writeArchive(file, []string{"docker.io/library/x:local", "docker.io/library/x:stable"}, []string{"/x"}, []byte("layer")))
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	entries := readTar(t, data)

	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	require.NoError(t, json.Unmarshal([]byte(entries["manifest.json"].content), &manifest))
	require.Equal(t, []string{"docker.io/library/x:local", "docker.io/library/x:stable"}, manifest[0].RepoTags)
	require.Equal(t, "layer", entries[manifest[0].Layers[0]].content)
	var config struct {
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(entries[manifest[0].Config].content), &config))
	require.Equal(t, []string{"sha256:" + digest([]byte("layer"))}, config.Rootfs.DiffIDs)
}

type tarEntry struct {
	header  *tar.Header
	content string
}

func readTar(t *testing.T, data []byte) map[string]tarEntry {
	t.Helper()
	entries := map[string]tarEntry{}
	err := readEntries(bytes.NewReader(data), func(header *tar.Header, content io.Reader) error {
		text, err := io.ReadAll(content)
		entries[header.Name] = tarEntry{header, string(text)}
		return err
	})
	require.NoError(t, err)
	return entries
}
