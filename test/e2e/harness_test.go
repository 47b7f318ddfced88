package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

func TestRewrite(t *testing.T) {
	t.Parallel()
	for _, config := range []string{e2e.ShippedConfig, e2e.RawConfig} {
		text, err := os.ReadFile(filepath.Join(e2e.Root(), config))
		if err != nil {
			t.Fatal(err)
		}
		for _, gates := range [][]string{{"127.0.0.1:1"}, {"127.0.0.1:1", "127.0.0.1:2"}, {"unix:///tmp/gate.sock"}} {
			if _, err := e2e.Rewrite(string(text), "127.0.0.1:3", gates...); err != nil {
				t.Errorf("%s with gates %v: %v", config, gates, err)
			}
		}
		if _, err := e2e.Rewrite(string(text)+string(text), "127.0.0.1:3", "127.0.0.1:1"); err == nil {
			t.Errorf("%s twice: no error", config)
		}
	}
}

// Without any gate the guarded routes are closed and the others open: envoy.yaml asks the gate for these, and for paths
// that are not plain, and only for these.
func TestGateIsGone(t *testing.T) {
	t.Parallel()
	api := e2e.StartAPI(t, "")
	for name, gate := range map[string]string{
		"tcp": "127.0.0.1:1", "unix": "unix://" + filepath.Join(t.TempDir(), "none.sock"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			envoy := e2e.StartEnvoy(t, e2e.ShippedConfig, api.Addr, gate)
			for _, path := range []string{"/run", "/run/x", "/assistant", "/run%0a", "/assistant%0a", "//run", "/r%75n", "/run;a=1", "/jobs/a%20b"} {
				if r := envoy.Raw(t, "POST "+path+" HTTP/1.1"); r.Status != http.StatusServiceUnavailable {
					t.Errorf("POST %s: got %d, want 503", path, r.Status)
				}
			}
			for path, want := range map[string]int{"/ping": http.StatusOK, "/runner": http.StatusNotFound, "/jobs/x": http.StatusNotFound} {
				if r := envoy.Get(t, path); r.Status != want {
					t.Errorf("GET %s: got %d, want %d", path, r.Status, want)
				}
			}
		})
	}
}
