package apiservertest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// Store writes an object into the API server's etcd, past its validation: as one that is older
// than the validation, or that was restored from a backup. The key is that of the object below
// /registry.
func (s *Server) Store(t *testing.T, key, object string) {
	t.Helper()
	s.etcd(t, "put", map[string][]byte{"key": []byte("/registry/" + key), "value": []byte(object)})
	t.Cleanup(func() { s.Unstore(t, key) })
}

// Unstore deletes an object from etcd.
func (s *Server) Unstore(t *testing.T, key string) {
	t.Helper()
	s.etcd(t, "deleterange", map[string][]byte{"key": []byte("/registry/" + key)})
}

// etcd calls etcd's JSON gateway, which takes bytes in base64, as encoding/json
// writes them.
func (s *Server) etcd(t *testing.T, call string, request map[string][]byte) {
	t.Helper()
	s.require(t)
	body, err := json.Marshal(request)
	require.NoError(t, err)
	address := s.env.ControlPlane.Etcd.URL.JoinPath("v3", "kv", call)
	response, err := http.Post(address.String(), "application/json", bytes.NewReader(body)) //nolint:noctx // A test's deadline bounds it.
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode, "%s", answer)
}
