package servers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEnvoyConfig: what the benchmark replaces is in the shipped configuration, and no fixed port is left. A
// configuration without it is an error.
func TestEnvoyConfig(t *testing.T) {
	t.Parallel()
	for _, e := range []Envoy{{}, {API: "127.0.0.1:4321"}, {API: "127.0.0.1:4321", RateLimit: true}} {
		e.Config = "../../envoy/envoy.yaml"
		text, err := e.config("127.0.0.1:1234")
		if err != nil {
			t.Fatal(err)
		}
		for _, left := range []string{"port_value: 8080", "port_value: 9901", "port_value: 9001"} {
			if strings.Contains(text, left) {
				t.Errorf("%+v: %s is left", e, left)
			}
		}
		if !strings.Contains(text, "port_value: 1234") || e.API != "" && !strings.Contains(text, "port_value: 4321") {
			t.Errorf("%+v: not all addresses are there", e)
		}
		if e.RateLimit == strings.Contains(text, gateFilter) {
			t.Errorf("%+v: wrong filter", e)
		}
	}
	other := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(other, []byte("admin: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, e := range []Envoy{{Config: other}, {Config: other, RateLimit: true}, {Config: other + ".none"}} {
		if _, err := e.config("127.0.0.1:1234"); err == nil {
			t.Errorf("%+v: no error", e)
		}
	}
}
