package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
)

// source is the content of the files of a port: certificate, key, client CAs.
type source [3]string

// material is a source that could be parsed.
type material struct {
	source
	cert      tls.Certificate
	clientCAs *x509.CertPool // nil: clients are asked for no certificate
}

// load returns what the files hold, or every mistake in them. It returns last if the
// files have not changed.
func (c Config) load(last *material) (*material, []error) {
	found, errs := c.open()
	if len(errs) > 0 {
		return nil, errs
	}
	if last != nil && found == last.source {
		return last, nil
	}
	return c.parse(found)
}

// open reads the files. Errors, here and below, never show the content of a file.
func (c Config) open() (source, []error) {
	var s source
	var errs []error
	for i, f := range []struct{ setting, path string }{{certFile, c.CertFile}, {keyFile, c.KeyFile}, {clientCAFile, c.ClientCAFile}} {
		if f.path == "" {
			continue
		}
		content, err := os.ReadFile(f.path) //nolint:gosec // the operator names the file
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.setting(f.setting), err))
		}
		s[i] = string(content)
	}
	return s, errs
}

func (c Config) parse(s source) (*material, []error) {
	var errs []error
	add := func(setting, path string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", c.setting(setting), path, err))
		}
	}
	m := &material{source: s}
	_, err := certificates(s[0])
	add(certFile, c.CertFile, err)
	if err == nil {
		m.cert, err = tls.X509KeyPair([]byte(s[0]), []byte(s[1]))
		add(keyFile, c.KeyFile, err)
	}
	if c.ClientCAFile != "" {
		cas, err := certificates(s[2])
		add(clientCAFile, c.ClientCAFile, err)
		m.clientCAs = x509.NewCertPool()
		for _, ca := range cas {
			m.clientCAs.AddCert(ca)
		}
	}
	return m, errs
}

// certificates returns all certificates in content. It refuses a file that is cut off,
// because somebody is writing it: the readers of the standard library skip what they
// don't understand, and would return fewer certificates.
func certificates(content string) ([]*x509.Certificate, error) {
	begun := strings.Count(content, "-----BEGIN ")
	var certs []*x509.Certificate
	for block, rest := pem.Decode([]byte(content)); block != nil; block, rest = pem.Decode(rest) {
		begun--
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	switch {
	case begun != 0:
		return nil, errors.New("is cut off, or is not PEM")
	case len(certs) == 0:
		return nil, errors.New("holds no certificate")
	}
	return certs, nil
}
