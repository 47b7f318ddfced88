package main

import (
	"crypto/tls"
	"maps"
	"slices"

	"github.com/refrakt-hub/refrakt-gate/certs"
	"github.com/refrakt-hub/refrakt-gate/internal/settings"
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
	mistakes := settings.Mistakes(append(c.grpc().Validate(), c.telemetry().Validate()...))
	mistakes.Add("TLS_MIN_VERSION", settings.OneOf(c.MinVersion, slices.Sorted(maps.Keys(tlsVersions))...))
	return mistakes
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
