package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The names in the certificates of gate and Envoy.
const (
	GateName  = "gate.refrakt.internal" // as envoy.yaml expects
	EnvoyName = "spiffe://refrakt/envoy"
)

// MutualTLS is the settings of a gate whose certificate is mounted in secret.
func MutualTLS(secret string) map[string]string {
	return map[string]string{
		"GRPC_TLS_CERT_FILE": filepath.Join(secret, "tls.crt"), "GRPC_TLS_KEY_FILE": filepath.Join(secret, "tls.key"),
		"GRPC_TLS_CLIENT_CA_FILE": filepath.Join(secret, "ca.crt"), "GRPC_TLS_CLIENT_NAMES": "envoy.internal," + EnvoyName,
	}
}

// TLSConfig is ShippedConfig with what it has for TLS switched on and Envoy's certificate mounted in secret. Of each
// two strings in oldnew, the first is in it once and replaced by the second.
func TLSConfig(tb testing.TB, secret string, oldnew ...string) string {
	tb.Helper()
	dir := tb.TempDir()
	for name, markers := range map[string]map[string]int{
		"envoy.yaml":       {"#tls ": 16, "/etc/envoy/tls-": 2},
		"tls-client.yaml":  {"/etc/envoy/tls": 3},
		"tls-gate-ca.yaml": {"/etc/envoy/tls": 2},
	} {
		content, err := os.ReadFile(filepath.Join(Root(), "envoy", name))
		if err != nil {
			tb.Fatalf("read Envoy configuration: %v", err)
		}
		text := string(content)
		for marker, n := range markers {
			if got := strings.Count(text, marker); got != n {
				tb.Fatalf("%q is in %s %d times, want %d", marker, name, got, n)
			}
		}
		text = strings.NewReplacer("#tls ", "", "/etc/envoy/tls-", dir+"/tls-", "/etc/envoy/tls", secret).Replace(text)
		if name == "envoy.yaml" {
			for i := 0; i < len(oldnew); i += 2 {
				if n := strings.Count(text, oldnew[i]); n != 1 {
					tb.Fatalf("%q is in it %d times, want once", oldnew[i], n)
				}
				text = strings.Replace(text, oldnew[i], oldnew[i+1], 1)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			tb.Fatalf("write Envoy configuration: %v", err)
		}
	}
	return filepath.Join(dir, "envoy.yaml")
}
