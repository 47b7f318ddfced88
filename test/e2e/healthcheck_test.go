package e2e_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/certtest"
	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestHealthcheck: the subcommand says what /readyz says, with the gate's own settings.
func TestHealthcheck(t *testing.T) {
	t.Parallel()
	ca, secret := certtest.NewCA(t), t.TempDir()
	certtest.Mount(t, secret, ca.Pair(t, "gate.internal"), ca)
	byTLS := map[string]string{
		"TELEMETRY_TLS_CERT_FILE": filepath.Join(secret, "tls.crt"), "TELEMETRY_TLS_KEY_FILE": filepath.Join(secret, "tls.key"),
	}
	serves := func(settings map[string]string) map[string]string {
		g := e2e.StartGate(t, settings)
		return with(settings, "TELEMETRY_ADDR", g.Telemetry)
	}
	redis := redistest.Start(t)
	degraded := map[string]string{"QUEUE_URL": redis.URL(), "QUEUE_STALE_AFTER": "1100ms"}
	lost := e2e.StartGate(t, degraded)
	redis.Kill()
	polltest.Until(t, 30*time.Second, "the queue to be unknown", func() error {
		if r := lost.Get(t, "/readyz"); !strings.Contains(r.Body, "queue: state unknown") {
			return fmt.Errorf("got %s", r.Body)
		}
		return nil
	})

	waiting := e2e.LaunchGate(t, map[string]string{"QUEUE_URL": redis.URL(), "STARTUP_TIMEOUT": "1h"})
	frozen := e2e.StartGate(t, nil)
	frozen.Signal(t, syscall.SIGSTOP)
	t.Cleanup(func() { frozen.Signal(t, syscall.SIGCONT) })
	other := func(status int, body string) map[string]string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}))
		t.Cleanup(s.Close)
		return map[string]string{"TELEMETRY_ADDR": s.Listener.Addr().String()}
	}

	for name, tt := range map[string]struct {
		settings map[string]string
		code     int
		want     string
	}{
		"ready":           {serves(map[string]string{}), 0, "ready\n"},
		"ready by TLS":    {serves(byTLS), 0, "ready\n"},
		"ready by socket": {serves(map[string]string{"TELEMETRY_ADDR": "unix://" + filepath.Join(socketDir(t), "telemetry.sock")}), 0, "ready\n"},
		"degraded":        {with(degraded, "TELEMETRY_ADDR", lost.Telemetry), 0, "degraded: queue: state unknown"},
		"not ready":       {map[string]string{"TELEMETRY_ADDR": waiting.Telemetry}, 1, "not ready: starting: "},
		"not there":       {map[string]string{"TELEMETRY_ADDR": "127.0.0.1:1"}, 1, "ask the gate at 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused"},
		"frozen":          {map[string]string{"TELEMETRY_ADDR": frozen.Telemetry}, 1, "context deadline exceeded"},
		"not by TLS":      {with(byTLS, "TELEMETRY_ADDR", waiting.Telemetry), 1, "ask the gate at"},
		"another's 200":   {other(http.StatusOK, `{}`), 1, "200 OK, which is no answer of a gate"},
		"another's text":  {other(http.StatusOK, `ready`), 1, "200 OK, which is no answer of a gate"},
		"another's ready": {other(http.StatusServiceUnavailable, `{"ready": true}`), 1, "503 Service Unavailable, which is no answer of a gate"},
		"bad settings":    {map[string]string{"TELEMETRY_ADDR": "nowhere"}, 2, "TELEMETRY_ADDR"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			code, out := e2e.RunGate(t, tt.settings, "healthcheck", "--timeout", "5s")
			if code != tt.code || !strings.Contains(out, tt.want) {
				t.Errorf("exit %d, want %d and %q:\n%s", code, tt.code, tt.want, out)
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("it took %v, more than its deadline", took)
			}
		})
	}
}

// with is the settings and one more.
func with(settings map[string]string, name, value string) map[string]string {
	all := maps.Clone(settings)
	all[name] = value
	return all
}
