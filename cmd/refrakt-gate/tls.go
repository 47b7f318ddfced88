package main

import (
	"crypto/tls"
	"fmt"

	"github.com/refrakt-hub/refrakt-gate/certs"
)

// TLSConfig is TLS on the two ports. The files are PEM, and are read again when
// they change; where there is no certificate, a port speaks plain text.
type TLSConfig struct {
	GRPCCertFile string `env:"GRPC_TLS_CERT_FILE"`
	GRPCKeyFile  string `env:"GRPC_TLS_KEY_FILE"`
	// GRPCClientCAFile makes it mutual TLS; GRPCClientNames says who of those with a
	// certificate may come, empty: all.
	GRPCClientCAFile  string   `env:"GRPC_TLS_CLIENT_CA_FILE"`
	GRPCClientNames   []string `env:"GRPC_TLS_CLIENT_NAMES"`
	TelemetryCertFile string   `env:"TELEMETRY_TLS_CERT_FILE"`
	TelemetryKeyFile  string   `env:"TELEMETRY_TLS_KEY_FILE"`
	MinVersion        string   `env:"TLS_MIN_VERSION" envDefault:"1.3"`
}

var tlsVersions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// Validate returns every mistake, each beginning with its variable's name.
func (c TLSConfig) Validate() []error {
	errs := append(c.grpc().Validate(), c.telemetry().Validate()...)
	if tlsVersions[c.MinVersion] == 0 {
		errs = append(errs, fmt.Errorf("TLS_MIN_VERSION: %q is none of 1.2, 1.3", c.MinVersion))
	}
	return errs
}

func (c TLSConfig) grpc() certs.Config {
	return certs.Config{
		Port: "grpc", CertFile: c.GRPCCertFile, KeyFile: c.GRPCKeyFile, ClientCAFile: c.GRPCClientCAFile,
		ClientNames: c.GRPCClientNames, MinVersion: tlsVersions[c.MinVersion], Protocols: []string{"h2"},
	}
}

func (c TLSConfig) telemetry() certs.Config {
	return certs.Config{
		Port: "telemetry", CertFile: c.TelemetryCertFile, KeyFile: c.TelemetryKeyFile,
		MinVersion: tlsVersions[c.MinVersion], Protocols: []string{"h2", "http/1.1"},
	}
}
