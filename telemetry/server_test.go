package telemetry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func newTestServer(cfg Config, ready *Readiness, degraded ...string) *Server {
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "sample", Help: "A sample."}))
	return NewServer(cfg, reg, ready, func() []string { return degraded }, testPage, slog.New(slog.DiscardHandler))
}

func get(h http.Handler, path, authorization string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestMetricsToken(t *testing.T) {
	h := newTestServer(Config{MetricsEnabled: true, MetricsRoute: "/m", BearerToken: "s3cret"}, new(Readiness)).Handler()
	for authorization, want := range map[string]int{
		"":                            401,
		"Bearer":                      401,
		"Bearer ":                     401,
		"Bearer wrong":                401,
		"Bearer s3cretx":              401,
		"s3cret":                      401,
		"Basic s3cret":                401,
		"Bearer x s3cret":             401,
		"Bearer Bearer Bearer s3cret": 401,
		"Bearer s3cret":               200,
		"bearer s3cret":               200,
		"Bearer  s3cret":              200,
		"Bearer Bearer s3cret":        200,
	} {
		w := get(h, "/m", authorization)
		if w.Code != want {
			t.Errorf("Authorization %q: %d, want %d", authorization, w.Code, want)
		}
		if challenge := w.Header().Get("WWW-Authenticate"); (challenge != "") != (want == 401) {
			t.Errorf("Authorization %q: WWW-Authenticate %q", authorization, challenge)
		}
		if has := strings.Contains(w.Body.String(), "sample"); has != (want == 200) {
			t.Errorf("Authorization %q: metrics shown: %v", authorization, has)
		}
		if strings.Contains(w.Body.String(), "s3cret") {
			t.Error("the answer shows the token")
		}
	}
}

func TestRoutes(t *testing.T) {
	tests := map[string]struct {
		cfg  Config
		want map[string]int
	}{
		"metrics":                {Config{MetricsEnabled: true, MetricsRoute: "/metrics"}, map[string]int{"/metrics": 200, "/healthz": 200, "/readyz": 200, "/": 200, "/x": 404}},
		"own route":              {Config{MetricsEnabled: true, MetricsRoute: "/a/b"}, map[string]int{"/a/b": 200, "/metrics": 404}},
		"no metrics":             {Config{MetricsRoute: "/metrics"}, map[string]int{"/metrics": 404, "/healthz": 200, "/readyz": 200}},
		"token only for metrics": {Config{MetricsEnabled: true, MetricsRoute: "/metrics", BearerToken: "x"}, map[string]int{"/metrics": 401, "/healthz": 200, "/readyz": 200}},
	}
	for name, tt := range tests {
		h := newTestServer(tt.cfg, new(Readiness)).Handler()
		for path, want := range tt.want {
			if got := get(h, path, "").Code; got != want {
				t.Errorf("%s: %s: %d, want %d", name, path, got, want)
			}
		}
	}
}

func TestReady(t *testing.T) {
	ready := new(Readiness)
	h := newTestServer(Config{}, ready, "limiter: away").Handler()
	ready.Block("b", "is late")
	ready.Block("a", "is later")
	if w := get(h, "/readyz", ""); w.Code != 503 || strings.TrimSpace(w.Body.String()) != `{"ready":false,"reasons":["a: is later","b: is late"],"degraded":["limiter: away"]}` {
		t.Errorf("blocked: %d %s", w.Code, w.Body)
	}
	ready.Clear("a")
	ready.Clear("b")
	if w := get(h, "/readyz", ""); w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{"ready":true,"degraded":["limiter: away"]}` {
		t.Errorf("ready: %d %s", w.Code, w.Body)
	}
}

func TestRun(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- newTestServer(Config{}, new(Readiness)).Run(ctx, l) }()
	resp, err := http.Get("http://" + l.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 200 || string(body) != "ok\n" {
		t.Errorf("healthz: %d %q", resp.StatusCode, body)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run does not end with its context")
	}
}

// pipes is a listener whose clients are in this process, so that the clock of a bubble
// is theirs too.
type pipes struct {
	conns chan net.Conn
	ended chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error   { close(p.ended); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestSlowClients: no client holds a connection for long without using it.
func TestSlowClients(t *testing.T) {
	const request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, tt := range map[string]struct {
		send string
		read bool // the answer
		most time.Duration
	}{
		"says nothing":             {"", false, 5 * time.Second},
		"half a header":            {"GET /metrics HTTP/1.1\r\nX: ", false, 5 * time.Second},
		"half a body":              {"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", true, 10 * time.Second},
		"never reads":              {request, false, 30 * time.Second},
		"asks once, and no more":   {request, true, 2 * time.Minute},
		"a header without an end":  {"GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 32<<10), true, 5 * time.Second},
		"more headers than it may": {"GET / HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 8<<10), true, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				l := pipes{make(chan net.Conn), make(chan struct{})}
				done := make(chan error, 1)
				go func() {
					done <- newTestServer(Config{MetricsEnabled: true, MetricsRoute: "/metrics"}, new(Readiness)).Run(ctx, l)
				}()
				client, server := net.Pipe()
				l.conns <- server
				begin := time.Now()
				go func() { _, _ = io.WriteString(client, tt.send) }()
				if tt.read {
					_, _ = io.Copy(io.Discard, client)
				} else {
					// A pipe's reader would take what the server writes: wait for the close alone.
					time.Sleep(tt.most + time.Second)
					_ = client.SetWriteDeadline(time.Now().Add(time.Second))
					if _, err := client.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
						t.Errorf("still open after %v: %v", time.Since(begin), err)
					}
				}
				if held := time.Since(begin); held > tt.most+3*time.Second {
					t.Errorf("held for %v, want %v at most", held, tt.most)
				}
				client.Close()
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestRunFailsWithItsListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := newTestServer(Config{}, new(Readiness)).Run(t.Context(), l); err == nil {
		t.Error("no error with a closed listener")
	}
}

func TestValidate(t *testing.T) {
	good := Config{MetricsRoute: "/metrics", LogFormat: "json", BearerToken: "abc.DEF-123"}
	if errs := good.Validate(); len(errs) > 0 {
		t.Errorf("defaults: %v", errs)
	}
	for _, route := range []string{"", "metrics", "/", "/metrics/", "/a b", "/{x}", "/healthz", "/readyz"} {
		bad := good
		bad.MetricsRoute = route
		if errs := bad.Validate(); len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), "PROMETHEUS_METRICS_ROUTE: ") {
			t.Errorf("route %q: %v", route, errs)
		}
	}
	bad := good
	bad.BearerToken, bad.LogFormat = "s3 cret", "xml"
	errs := bad.Validate()
	if len(errs) != 2 {
		t.Fatalf("%d mistakes, want 2: %v", len(errs), errs)
	}
	if strings.Contains(errs[0].Error(), "s3") {
		t.Errorf("the error shows the token: %v", errs[0])
	}
}

// testPage stands for the page.
var testPage = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") })
