package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/refrakt-hub/refrakt-gate/certs"
)

// clientTLS is how check speaks TLS. The zero value: as the gate's own settings
// say where these are at hand, else plain text.
type clientTLS struct {
	CA         string `placeholder:"FILE" help:"CAs of the gate's certificate. Any --tls flag means TLS; without this one the system's CAs count, or for the gate of GRPC_ADDR its GRPC_TLS_CERT_FILE."`
	Cert       string `and:"certificate" placeholder:"FILE" help:"Certificate to show to a gate that wants one (mutual TLS)."`
	Key        string `and:"certificate" placeholder:"FILE" help:"Its key."`
	ServerName string `placeholder:"NAME" help:"Name that the gate's certificate must have (default: the host asked, or the first name in GRPC_TLS_CERT_FILE)."`
}

// credentials are those for the gate with these settings, which are empty for one
// that is not known.
func (c clientTLS) credentials(gate TLSConfig) (credentials.TransportCredentials, error) {
	if c == (clientTLS{}) && gate.GRPCCertFile == "" {
		return insecure.NewCredentials(), nil
	}
	if gate.GRPCClientCAFile != "" && c.Cert == "" {
		return nil, errors.New("the gate wants a certificate (GRPC_TLS_CLIENT_CA_FILE): give --tls-cert and --tls-key")
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.Cert != "" {
		cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("read --tls-cert and --tls-key: %w", err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	if c.CA != "" {
		content, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("read --tls-ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("read --tls-ca: %s holds no certificate", c.CA)
		}
	}
	if gate.GRPCCertFile != "" {
		if err := expect(cfg, gate.grpc()); err != nil {
			return nil, err
		}
	}
	return credentials.NewTLS(cfg), nil
}

// expect fills into cfg what is left open there: the very certificate of the port
// asked, under a name that it has. The address asked is seldom one of its names.
func expect(cfg *tls.Config, port certs.Config) error {
	pair, err := tls.LoadX509KeyPair(port.CertFile, port.KeyFile)
	if err != nil {
		return fmt.Errorf("read the certificate of the %s port: %w", port.Port, err)
	}
	if cfg.RootCAs == nil {
		cfg.RootCAs = x509.NewCertPool()
		cfg.RootCAs.AddCert(pair.Leaf)
	}
	if cfg.ServerName != "" {
		return nil
	}
	if names := pair.Leaf.DNSNames; len(names) > 0 {
		cfg.ServerName = strings.Replace(names[0], "*", "any", 1)
	} else if ips := pair.Leaf.IPAddresses; len(ips) > 0 {
		cfg.ServerName = ips[0].String()
	}
	return nil
}
