//go:build linux

package kube

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/hack/cluster/machine"
)

func TestCredentials(t *testing.T) {
	pkiDir = t.TempDir()
	ca, err := newAuthority()
	require.NoError(t, err)
	require.NoError(t, ca.makeServers(machine.Options{Nodes: 2, IPFamily: machine.FamilyDual}))

	pool := x509.NewCertPool()
	pool.AddCert(ca.certificate)
	for file, names := range map[string][]string{
		"kube-apiserver": {"172.30.0.1", "fd00:30::1", "10.96.0.1", "fd00:10:96::1", "kubernetes.default.svc"},
		"node-2":         {"172.30.0.12", "fd00:30::12", "node-2"},
	} {
		certificate := readCertificate(t, file)
		for _, name := range names {
			_, err := certificate.Verify(x509.VerifyOptions{Roots: pool, DNSName: name})
			require.NoError(t, err, "%s as %s", file, name)
		}
		_, err = certificate.Verify(x509.VerifyOptions{Roots: pool, DNSName: "172.30.0.99"})
		require.Error(t, err)
	}
	subject := readCertificate(t, "node-2").Subject
	require.Equal(t, "system:node:node-2", subject.CommonName)
	require.Equal(t, []string{"system:nodes"}, subject.Organization)
}

func readCertificate(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(certificateFile(name))
	require.NoError(t, err)
	block, _ := pem.Decode(data)
	require.NotNil(t, block)
	certificate, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return certificate
}
