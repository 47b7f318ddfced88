// Package certtest makes certificates for tests.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// CA signs certificates.
type CA struct {
	Cert []byte // PEM

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes a CA.
func NewCA(tb testing.TB) *CA {
	tb.Helper()
	key := newKey(tb)
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: tb.Name()}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca := &CA{key: key}
	ca.cert = sign(tb, template, template, key, key)
	ca.Cert = encode("CERTIFICATE", ca.cert.Raw)
	return ca
}

// Pair is a certificate and its key, in PEM.
type Pair struct{ Cert, Key []byte }

// Pair makes a certificate for a day with these names: URIs, IP addresses, or DNS names.
func (ca *CA) Pair(tb testing.TB, names ...string) Pair {
	tb.Helper()
	template := &x509.Certificate{
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if uri, err := url.Parse(name); err == nil && strings.Contains(name, "://") {
			template.URIs = append(template.URIs, uri)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	key := newKey(tb)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatalf("encode key: %v", err)
	}
	return Pair{Cert: encode("CERTIFICATE", sign(tb, template, ca.cert, key, ca.key).Raw), Key: encode("PRIVATE KEY", der)}
}

// TLS is the pair as crypto/tls has it.
func (p Pair) TLS(tb testing.TB) tls.Certificate {
	tb.Helper()
	cert, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		tb.Fatalf("read certificate: %v", err)
	}
	return cert
}

// Pool is a pool of CAs.
func Pool(cas ...*CA) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, ca := range cas {
		pool.AddCert(ca.cert)
	}
	return pool
}

// Mount puts the pair and the CAs into dir as Kubernetes mounts a Secret: as links
// into another folder, which is exchanged as a whole when this is called again.
func Mount(tb testing.TB, dir string, pair Pair, cas ...*CA) {
	tb.Helper()
	do := func(errs ...error) {
		tb.Helper()
		if err := errors.Join(errs...); err != nil {
			tb.Fatalf("mount certificate: %v", err)
		}
	}
	next, err := os.MkdirTemp(dir, "..")
	do(err)
	old, err := os.Readlink(filepath.Join(dir, "..data"))
	first := err != nil
	files := map[string][]byte{"tls.crt": pair.Cert, "tls.key": pair.Key, "ca.crt": nil}
	for _, ca := range cas {
		files["ca.crt"] = append(files["ca.crt"], ca.Cert...)
	}
	for name, content := range files {
		do(os.WriteFile(filepath.Join(next, name), content, 0o600))
	}
	do(os.Symlink(filepath.Base(next), filepath.Join(dir, "..data_tmp")), os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	if !first {
		do(os.RemoveAll(filepath.Join(dir, old)))
		return
	}
	for name := range files {
		do(os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
	}
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatalf("make key: %v", err)
	}
	return key
}

func sign(tb testing.TB, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	tb.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		tb.Fatalf("make serial number: %v", err)
	}
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		tb.Fatalf("sign certificate: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatalf("read certificate: %v", err)
	}
	return cert
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
