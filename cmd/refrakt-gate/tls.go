package main

import (
	"crypto/tls"
	"maps"
	"slices"

	"github.com/refrakt-hub/refrakt-gate/certs"
	"github.com/refrakt-hub/refrakt-gate/internal/settings"
)

// TLSConfig has the settings for TLS on the two ports. All files are PEM, and are read
// again when they change. A port without a certificate speaks plain text.
type TLSConfig struct {
	// GRPCCertFile has the certificate of the gRPC port, GRPCKeyFile its key.
	GRPCCertFile string `env:"GRPC_TLS_CERT_FILE"`
	GRPCKeyFile  string `env:"GRPC_TLS_KEY_FILE"`
	// GRPCClientCAFile has the CAs that sign Envoy's certificate (mutual TLS). If it is
	// empty, clients need no certificate.
	GRPCClientCAFile string `env:"GRPC_TLS_CLIENT_CA_FILE"`
	// GRPCClientNames are DNS names and URIs such as "spiffe://refrakt/envoy". Envoy's
	// certificate must have one of them. If there are none, every certificate of those CAs
	// is accepted.
	GRPCClientNames []string `env:"GRPC_TLS_CLIENT_NAMES"`
	// TelemetryCertFile has the certificate of the telemetry port, TelemetryKeyFile its key.
	TelemetryCertFile string `env:"TELEMETRY_TLS_CERT_FILE"`
	TelemetryKeyFile  string `env:"TELEMETRY_TLS_KEY_FILE"`
	// MinVersion is the oldest version of TLS on both ports, "1.2" or "1.3".
	MinVersion string `env:"TLS_MIN_VERSION" envDefault:"1.3"`
}

var tlsVersions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// Validate returns every mistake. Each begins with the name of its variable.
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
