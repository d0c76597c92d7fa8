//go:build linux

package kube

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/moat-dev/moat/hack/cluster/files"
	"github.com/moat-dev/moat/hack/cluster/machine"
)

var pkiDir = filepath.Join(machine.StateDir, "pki")

// certificateLife is long enough for any local cluster.
const certificateLife = 365 * 24 * time.Hour

// authority is the cluster's one certificate authority: for the API server, its
// clients and the kubelets alike.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

// keyPair is a certificate and its key in PEM.
type keyPair struct{ certificate, key []byte }

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the authority's key: %w", err)
	}
	template, err := certificateTemplate(pkix.Name{CommonName: "moat-cluster"})
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making the authority's certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parsing the authority's certificate: %w", err)
	}
	ca := &authority{certificate: certificate, key: key, pem: encodePEM("CERTIFICATE", der)}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return ca, keyPair{ca.pem, keyPEM}.write("ca")
}

// issue makes a certificate for both ends of a connection. Kubernetes takes the
// common name for the user and the organization for its group.
func (ca *authority) issue(name pkix.Name, names []string, addresses []netip.Addr) (keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return keyPair{}, fmt.Errorf("making a key for %s: %w", name.CommonName, err)
	}
	template, err := certificateTemplate(name)
	if err != nil {
		return keyPair{}, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	template.DNSNames = names
	for _, address := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(address.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, key.Public(), ca.key)
	if err != nil {
		return keyPair{}, fmt.Errorf("making a certificate for %s: %w", name.CommonName, err)
	}
	keyPEM, err := encodeKey(key)
	return keyPair{encodePEM("CERTIFICATE", der), keyPEM}, err
}

func certificateTemplate(name pkix.Name) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("making a serial number: %w", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      name,
		NotBefore:    now.Add(-time.Hour), // clocks step
		NotAfter:     now.Add(certificateLife),
	}, nil
}

// write stores the pair as NAME.crt and NAME.key.
func (p keyPair) write(name string) error {
	if err := files.WriteFile(certificateFile(name), string(p.certificate)); err != nil {
		return err
	}
	return files.WriteFile(keyFile(name), string(p.key))
}

func certificateFile(name string) string { return filepath.Join(pkiDir, name+".crt") }
func keyFile(name string) string         { return filepath.Join(pkiDir, name+".key") }

// writeServiceAccountKey stores the key that signs service account tokens.
func writeServiceAccountKey() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making the service account key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("encoding the service account key: %w", err)
	}
	private, err := encodeKey(key)
	if err != nil {
		return err
	}
	if err := files.WriteFile(filepath.Join(pkiDir, "service-account.pub"), string(encodePEM("PUBLIC KEY", public))); err != nil {
		return err
	}
	return files.WriteFile(keyFile("service-account"), string(private))
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return encodePEM("EC PRIVATE KEY", der), nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
