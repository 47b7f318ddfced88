package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

const authzService = "envoy.service.auth.v3.Authorization"

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	if !strings.HasPrefix(addr, "unix://") {
		addr = "passthrough:///" + addr
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// check asks a gate directly and returns whether the request may pass.
func check(t *testing.T, conn *grpc.ClientConn, ip string, headers map[string]string) bool {
	t.Helper()
	resp, err := authv3.NewAuthorizationClient(conn).Check(deadline(t), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: ip},
		}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: http.MethodPost, Path: "/run", Headers: headers,
		}},
	}})
	if err != nil {
		t.Fatalf("Check: %v", err)
	}
	return resp.GetStatus().GetCode() == 0
}

func wantHealth(t *testing.T, conn *grpc.ClientConn, want healthpb.HealthCheckResponse_ServingStatus) {
	t.Helper()
	for _, service := range []string{"", authzService} {
		resp, err := healthpb.NewHealthClient(conn).Check(deadline(t), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || resp.GetStatus() != want {
			t.Errorf("health of %q: got %v, %v; want %v", service, resp.GetStatus(), err, want)
		}
	}
}

func wantExit(t *testing.T, p *proctest.Process, code int) {
	t.Helper()
	p.Wait(t, 30*time.Second)
	if got := p.ExitCode(); got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
}

func TestStartWithoutRedis(t *testing.T) {
	t.Parallel()
	g := e2e.LaunchGate(t, map[string]string{"QUEUE_URL": "unix:///nowhere/redis.sock", "STARTUP_TIMEOUT": "8s"})
	if r := g.Get(t, "/healthz"); r.Status != http.StatusOK {
		t.Errorf("/healthz: got %d, want 200 from the beginning", r.Status)
	}
	if r := g.Get(t, "/readyz"); r.Status != http.StatusServiceUnavailable || !strings.Contains(r.Body, "starting") {
		t.Errorf("/readyz: got %d %s, want 503 and why", r.Status, r.Body)
	}
	wantExit(t, g.Process, 1)
	if !strings.Contains(g.Log(), "STARTUP_TIMEOUT") || !strings.Contains(g.Log(), "/nowhere/redis.sock") {
		t.Error("the log does not say what was waited for")
	}
	if strings.Contains(g.Log(), `"msg":"serving"`) {
		t.Error("the gRPC port was opened without Redis")
	}
}

func TestStoppedWhileItWaitsForRedis(t *testing.T) {
	t.Parallel()
	g := e2e.LaunchGate(t, map[string]string{"QUEUE_URL": "unix:///nowhere/redis.sock"})
	g.Signal(t, syscall.SIGTERM)
	wantExit(t, g.Process, 0)
}

func TestRedisComesLate(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	redis.Kill()
	g := e2e.LaunchGate(t, map[string]string{"QUEUE_URL": redis.URL()})
	g.WaitLog(t, regexp.MustCompile("Redis does not answer yet"))
	redis.Restart()
	g.WaitLog(t, regexp.MustCompile(`"msg":"serving"`))
	polltest.Until(t, 20*time.Second, "/readyz", func() error {
		if r := g.Get(t, "/readyz"); r.Status != http.StatusOK {
			return fmt.Errorf("got %d %s", r.Status, r.Body)
		}
		return nil
	})
}

func TestWrongRedisPassword(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, "--requirepass", "right")
	g := e2e.LaunchGate(t, map[string]string{
		"QUEUE_URL": "unix://ann:hunter2@" + redis.Socket, "STARTUP_TIMEOUT": "1s", "LOG_LEVEL": "debug",
	})
	wantExit(t, g.Process, 1)
	if !strings.Contains(g.Log(), "WRONGPASS") {
		t.Error("the log does not name the reason")
	}
	if strings.Contains(g.Log(), "hunter2") {
		t.Error("the log shows the password")
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(socketDir(t), "gate.sock")
	g := e2e.StartGate(t, map[string]string{"GRPC_ADDR": "unix://" + socket, "SHUTDOWN_DRAIN": "5s"})
	conn := dial(t, g.GRPC)
	wantHealth(t, conn, healthpb.HealthCheckResponse_SERVING)
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket's mode is %v (%v), want owner and group only", info.Mode(), err)
	}
	g.Signal(t, syscall.SIGTERM)
	g.WaitLog(t, regexp.MustCompile(`"msg":"draining"`))
	polltest.Until(t, 10*time.Second, "/readyz to say no", func() error {
		if r := g.Get(t, "/readyz"); r.Status != http.StatusServiceUnavailable || !strings.Contains(r.Body, "stopping") {
			return fmt.Errorf("got %d %s", r.Status, r.Body)
		}
		return nil
	})
	wantHealth(t, conn, healthpb.HealthCheckResponse_NOT_SERVING)
	if !check(t, conn, "203.0.113.9", nil) {
		t.Error("denied while draining")
	}
	wantExit(t, g.Process, 0)
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	g := e2e.StartGate(t, map[string]string{"SHUTDOWN_DRAIN": "1h"})
	g.Signal(t, syscall.SIGTERM)
	g.WaitLog(t, regexp.MustCompile(`"msg":"draining"`))
	g.Signal(t, syscall.SIGTERM)
	wantExit(t, g.Process, -1) // by the signal
}

// TestRuntimeMemory: the gate collects garbage rarely, unless the operator has told the Go runtime something else.
func TestRuntimeMemory(t *testing.T) {
	for name, tt := range map[string]struct {
		settings map[string]string
		percent  float64 // of what is kept, by which the heap may grow
		limit    float64 // bytes; 0: not looked at
	}{
		"buckets in memory":    {nil, 47, 0},
		"no buckets in memory": {map[string]string{"QUEUE_URL": redistest.Start(t).URL(), "RATE_LIMIT_FAILURE_MODE": "deny"}, 300, 0},
		"GOGC":                 {map[string]string{"GOGC": "77"}, 77, 0},
		"GOMEMLIMIT":           {map[string]string{"GOMEMLIMIT": "99MiB"}, 47, 99 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			m := e2e.StartGate(t, tt.settings).Metrics(t)
			if got := m["go_gc_gogc_percent"]; got < tt.percent-2 || got > tt.percent+2 {
				t.Errorf("GOGC is %v, want about %v", got, tt.percent)
			}
			if got := m["go_gc_gomemlimit_bytes"]; tt.limit > 0 && got != tt.limit {
				t.Errorf("GOMEMLIMIT is %v, want %v", got, tt.limit)
			}
		})
	}
}

func TestAddressTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Run("grpc", func(t *testing.T) {
		g := e2e.LaunchGate(t, map[string]string{"GRPC_ADDR": l.Addr().String()})
		wantExit(t, g.Process, 1)
		if !strings.Contains(g.Log(), "listen on GRPC_ADDR") || !strings.Contains(g.Log(), "address already in use") {
			t.Error("the log does not say so")
		}
	})
	t.Run("telemetry", func(t *testing.T) {
		p := proctest.Start(t, proctest.Command{Name: "gate", Path: e2e.GateBinary(t), Env: []string{
			"GRPC_ADDR=127.0.0.1:0", "TELEMETRY_ADDR=" + l.Addr().String(),
		}})
		wantExit(t, p, 1)
		if !strings.Contains(p.Log(), "listen on TELEMETRY_ADDR") {
			t.Error("the log does not say so")
		}
	})
	t.Run("socket of a living gate", func(t *testing.T) {
		settings := map[string]string{"GRPC_ADDR": "unix://" + filepath.Join(socketDir(t), "gate.sock")}
		first := e2e.StartGate(t, settings)
		second := e2e.LaunchGate(t, settings)
		wantExit(t, second.Process, 1)
		if !strings.Contains(second.Log(), "another process listens there") {
			t.Error("the log does not say so")
		}
		// And of a killed one: it is replaced.
		first.Kill(t)
		third := e2e.StartGate(t, settings)
		if !check(t, dial(t, third.GRPC), "203.0.113.9", nil) {
			t.Error("denied by the gate on the old socket's path")
		}
	})
}

func TestOneWarningWithoutQueue(t *testing.T) {
	t.Parallel()
	g := e2e.StartGate(t, nil)
	if n := strings.Count(g.Log(), `"level":"WARN"`); n != 1 || !strings.Contains(g.Log(), "QUEUE_URL is not set") {
		t.Errorf("%d warnings, want one about QUEUE_URL", n)
	}
}

// TestMalformedCalls sends what no Envoy would; the gate answers and stays up.
func TestMalformedCalls(t *testing.T) {
	t.Parallel()
	g := e2e.StartGate(t, map[string]string{"RATE_LIMIT_RUN_BURST": "1"})
	conn := dial(t, g.GRPC)
	for i, headers := range []map[string]string{
		{"x-user-id": strings.Repeat("x", 1<<20)},
		{"x-forwarded-for": strings.Repeat("10.9.9.9,", 9_999) + "10.9.9.9"},
		{"x-forwarded-for": strings.Repeat("1", 1<<20), "cf-connecting-ip": "\t"},
	} {
		ip := fmt.Sprintf("10.0.%d.1", i)
		if !check(t, conn, ip, headers) {
			t.Errorf("request %d: denied", i)
		}
		if check(t, conn, ip, headers) {
			t.Errorf("request %d: allowed twice", i)
		}
	}
	client := authv3.NewAuthorizationClient(conn)
	resp, err := client.Check(deadline(t), &authv3.CheckRequest{})
	if err != nil || resp.GetStatus() == nil {
		t.Errorf("an empty request: %v, %v", resp, err)
	}
	// Not a CheckRequest, and too long a one: the two gRPC errors there are.
	method := "/" + authzService + "/Check"
	if err := conn.Invoke(deadline(t), method, wrapperspb.Bytes(bytes.Repeat([]byte{0xff}, 100)), new(authv3.CheckResponse)); err == nil {
		t.Error("bytes that are no CheckRequest were answered")
	}
	if err := conn.Invoke(deadline(t), method, wrapperspb.Bytes(make([]byte, 5<<20)), new(authv3.CheckResponse)); err == nil {
		t.Error("5 MiB were answered")
	}
	if !g.Running() || !check(t, conn, "203.0.113.77", nil) {
		t.Error("the gate does not go on")
	}
}

// TestServerLimits reads what the gRPC server tells its clients to keep to.
func TestServerLimits(t *testing.T) {
	t.Parallel()
	g := e2e.StartGate(t, map[string]string{"MAX_CONCURRENT_CHECKS": "50"})
	conn, err := net.Dial("tcp", g.GRPC)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	frame, err := framer.ReadFrame()
	settings, ok := frame.(*http2.SettingsFrame)
	if err != nil || !ok {
		t.Fatalf("got %v, %v, want settings", frame, err)
	}
	for id, want := range map[http2.SettingID]uint32{
		http2.SettingMaxConcurrentStreams: 100, http2.SettingMaxHeaderListSize: 16 << 10,
	} {
		if got, _ := settings.Value(id); got != want {
			t.Errorf("%v: got %d, want %d", id, got, want)
		}
	}
}

// TestPayloadIsNotJSON has one job whose payload nobody can read: its age is unknown, and the failure mode decides.
func TestPayloadIsNotJSON(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]int{"allow": http.StatusOK, "deny": http.StatusServiceUnavailable} {
		t.Run(mode, func(t *testing.T) {
			settings := queueSettings(5)
			settings["QUEUE_FAILURE_MODE"] = mode
			s := e2e.Start(t, e2e.Options{Settings: settings})
			if err := errors.Join(
				s.Client.Set(t.Context(), "saq:job:default:x", "{not json", 0).Err(),
				s.Client.RPush(t.Context(), "saq:default:queued", "saq:job:default:x").Err(),
			); err != nil {
				t.Fatal(err)
			}
			polltest.Until(t, 20*time.Second, "state unknown", func() error {
				if s.Gates[0].Metrics(t)[`refrakt_gate_queue_state{state="unknown"}`] != 1 {
					return errors.New("not yet")
				}
				return nil
			})
			if r := s.Post(t, "/assistant", e2e.Caller(t)); r.Status != want {
				t.Errorf("got %d %s, want %d", r.Status, r.Body, want)
			}
		})
	}
}

// TestSecretsStayInside plants secrets and looks for them wherever a gate speaks.
func TestSecretsStayInside(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, "--requirepass", "hunter2")
	g := e2e.StartGate(t, map[string]string{
		"QUEUE_URL": "unix://default:hunter2@" + redis.Socket, "PROMETHEUS_BEARER_TOKEN": "sesame", "LOG_LEVEL": "debug",
	})
	conn := dial(t, g.GRPC)
	check(t, conn, "203.0.113.9", map[string]string{"x-user-id": "ann-of-green-gables"})
	if r := g.Get(t, "/metrics"); r.Status != http.StatusUnauthorized || r.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("/metrics without the token: got %d, WWW-Authenticate %q", r.Status, r.Header.Get("WWW-Authenticate"))
	}
	metrics := g.Get(t, "/metrics", "Authorization: Bearer Bearer sesame")
	if metrics.Status != http.StatusOK {
		t.Errorf("/metrics with the token: got %d", metrics.Status)
	}
	redis.Kill()
	g.WaitLog(t, regexp.MustCompile(`"Redis lost.*"breaker":"limiter"`))
	check(t, conn, "203.0.113.9", map[string]string{"x-user-id": "ann-of-green-gables"})
	g.Stop(t)
	if !strings.Contains(g.Log(), `"msg":"decided"`) {
		t.Error("nothing was logged at debug: the test looks at nothing")
	}
	for _, secret := range []string{"hunter2", "sesame", "ann-of-green-gables", "203.0.113.9"} {
		if strings.Contains(g.Log(), secret) || strings.Contains(metrics.Body, secret) {
			t.Errorf("%s is shown", secret)
		}
	}
}

// socketDir is for unix sockets, whose paths must be short.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestSilentPeer: who connects to the gRPC port and says nothing is cut off.
func TestSilentPeer(t *testing.T) {
	t.Parallel()
	g := e2e.StartGate(t, nil)
	conn, err := net.Dial("tcp", g.GRPC)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// By itself gRPC waits for two minutes.
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("still connected: %v", err)
	}
}
