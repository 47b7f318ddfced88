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

// clientTLS says how check speaks TLS. With the zero value, check goes by the settings of
// the gate if they are in the environment, and speaks plain text if they are not.
type clientTLS struct {
	CA         string `placeholder:"FILE" help:"CAs that sign the certificate of the gate. Default: for the gate of GRPC_ADDR its GRPC_TLS_CERT_FILE, else the CAs of the system. Each --tls flag switches TLS on."`
	Cert       string `and:"certificate" placeholder:"FILE" help:"Certificate for a gate that asks for one (mutual TLS)."`
	Key        string `and:"certificate" placeholder:"FILE" help:"Key of that certificate."`
	ServerName string `placeholder:"NAME" help:"Name that the certificate of the gate must have. Default: for the gate of GRPC_ADDR the first name in its GRPC_TLS_CERT_FILE, else the host of the address."`
}

// credentials returns the credentials for a gate. gate are the settings of that gate, or
// the zero value if they are not known.
func (c clientTLS) credentials(gate TLSConfig) (credentials.TransportCredentials, error) {
	if c == (clientTLS{}) && gate.GRPCCertFile == "" {
		return insecure.NewCredentials(), nil
	}
	if gate.GRPCClientCAFile != "" && c.Cert == "" {
		return nil, errors.New("the gate asks for a certificate (GRPC_TLS_CLIENT_CA_FILE): give --tls-cert and --tls-key")
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

// expect fills in what cfg leaves open: the certificate of the port as the only CA, and
// a name in that certificate. The address of the port is seldom one of its names.
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
