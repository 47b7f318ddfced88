package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestNothingServedBeforeRedis looks at a gate that waits: its socket is not there, and /readyz says what is missing.
func TestNothingServedBeforeRedis(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	redis.Kill()
	socket := socketDir(t) + "/gate.sock"
	g := e2e.LaunchGate(t, map[string]string{"QUEUE_URL": redis.URL(), "GRPC_ADDR": "unix://" + socket})
	polltest.Until(t, 20*time.Second, "/readyz to name Redis", func() error {
		r := g.Get(t, "/readyz")
		if r.Status != http.StatusServiceUnavailable {
			t.Fatalf("/readyz: got %d %s, want 503", r.Status, r.Body)
		}
		if !strings.Contains(r.Body, redis.Socket) {
			return errors.New(r.Body)
		}
		return nil
	})
	if conn, err := net.Dial("unix", socket); err == nil {
		_ = conn.Close()
		t.Error("the gRPC socket is open before Redis has answered")
	}
	redis.Restart()
	polltest.Until(t, 30*time.Second, "the gRPC socket", func() error {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if !check(t, dial(t, "unix://"+socket), "203.0.113.9", nil) {
		t.Error("denied once Redis is there")
	}
}

// TestRedisFrozenDeny: a Redis that hangs is one that is away, and each answer is the gate's.
func TestRedisFrozenDeny(t *testing.T) {
	t.Parallel()
	s := e2e.Start(t, e2e.Options{
		Config: e2e.PatientConfig(t), Settings: roomy(map[string]string{"RATE_LIMIT_FAILURE_MODE": "deny"}),
	})
	tr := startTraffic(t, s)
	await := func(answer string) {
		t.Helper()
		start := tr.count(answer)
		polltest.Until(t, 30*time.Second, fmt.Sprintf("answers %q", answer), func() error {
			if n := tr.count(answer) - start; n < 50 {
				return fmt.Errorf("%d of 50", n)
			}
			return nil
		})
	}
	await("200")
	pid := s.Redis.PID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	await(noLimiter)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await("200")
	for answer, n := range tr.end() {
		if answer != "200" && answer != noLimiter {
			t.Errorf("%d times: %s", n, answer)
		}
	}
}

// TestNotHTTP2 sends bytes to the gRPC port that no gRPC client sends.
func TestNotHTTP2(t *testing.T) {
	t.Parallel()
	g := e2e.StartGate(t, nil)
	for _, text := range []string{"", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 4096)} {
		conn, err := net.Dial("tcp", g.GRPC)
		if err != nil {
			t.Fatal(err)
		}
		// The gate may have hung up before all is written.
		_, _ = io.WriteString(conn, text)
		_ = conn.Close()
	}
	if !check(t, dial(t, g.GRPC), "203.0.113.77", nil) || !g.Running() {
		t.Error("the gate does not go on")
	}
}

// TestSecretsOfTheLimiter plants secrets where TestSecretsStayInside has none: in a Redis of the limiter's own, and
// in what callers of /metrics send.
func TestSecretsOfTheLimiter(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, "--requirepass", "hunter2")
	g := e2e.StartGate(t, map[string]string{
		"RATE_LIMIT_REDIS_URL": "unix://default:hunter2@" + redis.Socket, "PROMETHEUS_BEARER_TOKEN": "sesame", "LOG_LEVEL": "debug",
	})
	conn := dial(t, g.GRPC)
	check(t, conn, "203.0.113.9", nil)
	var shown []string
	for header, want := range map[string]int{
		"Authorization: Bearer sesame": http.StatusOK, "Authorization: Bearer swordfish": http.StatusUnauthorized,
		"Authorization: Basic sesame": http.StatusUnauthorized, "X-Nothing: here": http.StatusUnauthorized,
	} {
		r := g.Get(t, "/metrics", header)
		if r.Status != want {
			t.Errorf("/metrics with %q: got %d, want %d", header, r.Status, want)
		}
		shown = append(shown, r.Body)
	}
	redis.Kill()
	for range 5 {
		check(t, conn, "203.0.113.9", nil)
	}
	shown = append(shown, g.Get(t, "/readyz").Body)
	g.Stop(t)
	if !strings.Contains(g.Log(), `"msg":"decided"`) || !strings.Contains(g.Log(), "limiter store failed") {
		t.Error("nothing was logged at debug: the test looks at nothing")
	}
	shown = append(shown, g.Log())
	for _, secret := range []string{"hunter2", "sesame", "swordfish"} {
		if strings.Contains(strings.Join(shown, "\n"), secret) {
			t.Errorf("%s is shown", secret)
		}
	}
}
