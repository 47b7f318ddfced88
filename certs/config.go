package certs

import (
	"errors"
	"fmt"
	"strings"
)

// Config is the TLS of one port. The files are PEM.
type Config struct {
	Port     string // grpc, of which the settings are GRPC_TLS_…
	CertFile string // the certificate, and those between it and its CA; empty: plain text
	KeyFile  string
	// ClientCAFile has the CAs of the clients that may come; empty: anybody may.
	ClientCAFile string
	// ClientNames are the DNS names and URIs one of which must be in a client's
	// certificate; empty: any certificate of those CAs will do.
	ClientNames []string
	MinVersion  uint16   // of TLS
	Protocols   []string // to be spoken, by their names in ALPN
}

// Validate returns every mistake, in the files too, each beginning with its
// variable's name.
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
		return errors.New("is no whole DNS name or URI")
	}
	return nil
}

// setting is the variable's name.
func (c Config) setting(name string) string { return strings.ToUpper(c.Port) + "_TLS_" + name }

// How the names of the settings end.
const (
	certFile     = "CERT_FILE"
	keyFile      = "KEY_FILE"
	clientCAFile = "CLIENT_CA_FILE"
	clientNames  = "CLIENT_NAMES"
)
