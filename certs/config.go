package certs

import (
	"errors"
	"fmt"
	"strings"
)

// Config says how one port speaks TLS. All files are PEM.
type Config struct {
	// Port is the name of the port, "grpc" or "telemetry". The settings of the port grpc
	// begin with GRPC_TLS_.
	Port string
	// CertFile has the certificate of the port, with the certificates between it and its
	// CA. If it is empty, the port speaks plain text.
	CertFile string
	// KeyFile has the private key of the certificate.
	KeyFile string
	// ClientCAFile has the CAs that sign the certificates of clients. If it is empty, the
	// port asks clients for no certificate.
	ClientCAFile string
	// ClientNames are DNS names and URIs such as "spiffe://refrakt/envoy". The certificate
	// of a client must have one of them. If there are none, every certificate of those CAs
	// is accepted.
	ClientNames []string
	// MinVersion is the oldest version of TLS: tls.VersionTLS12 or tls.VersionTLS13.
	MinVersion uint16
	// Protocols are the protocols that ALPN can choose, such as "h2".
	Protocols []string
}

// Validate returns every mistake, also those in the files. Each begins with the name of
// its variable.
func (c Config) Validate() []error {
	var errs []error
	needs := func(name, other string) {
		errs = append(errs, fmt.Errorf("%s: %s is not set", c.setting(name), c.setting(other)))
	}
	switch {
	case c.CertFile == "" && c.KeyFile == "":
		if c.ClientCAFile != "" {
			needs(clientCAFile, certFile)
		}
	case c.KeyFile == "":
		needs(certFile, keyFile)
	case c.CertFile == "":
		needs(keyFile, certFile)
	default:
		_, mistakes := c.load(nil)
		errs = append(errs, mistakes...)
	}
	if len(c.ClientNames) > 0 && c.ClientCAFile == "" {
		needs(clientNames, clientCAFile)
	}
	for _, name := range c.ClientNames {
		if err := validName(name); err != nil {
			return append(errs, fmt.Errorf("%s: %q %w", c.setting(clientNames), name, err))
		}
	}
	return errs
}

func validName(name string) error {
	if name == "" || strings.ContainsAny(name, " *") {
		return errors.New("is not a whole DNS name or URI")
	}
	return nil
}

// setting returns the name of a variable: GRPC_TLS_CERT_FILE, for example.
func (c Config) setting(name string) string { return strings.ToUpper(c.Port) + "_TLS_" + name }

// The ends of the names of the settings.
const (
	certFile     = "CERT_FILE"
	keyFile      = "KEY_FILE"
	clientCAFile = "CLIENT_CA_FILE"
	clientNames  = "CLIENT_NAMES"
)
