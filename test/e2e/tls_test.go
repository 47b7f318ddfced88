package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/refrakt-hub/refrakt-gate/internal/certtest"
	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestMutualTLS: Envoy asks by mutual TLS as envoy.yaml has it, and no gate that it does not know.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	ca := certtest.NewCA(t)
	envoy := t.TempDir()
	certtest.Mount(t, envoy, ca.Pair(t, e2e.EnvoyName), ca)
	api := e2e.StartAPI(t, "")
	for name, tt := range map[string]struct {
		gate    string // the name in its certificate
		replace []string
		want    []int
	}{
		"as it is shipped":    {e2e.GateName, nil, []int{http.StatusAccepted, http.StatusAccepted, http.StatusTooManyRequests}},
		"a gate of that CA":   {"other.refrakt.internal", nil, []int{http.StatusServiceUnavailable}},
		"Envoy's default TLS": {e2e.GateName, []string{", tls_maximum_protocol_version: TLSv1_3", "", "TLSv1_3", "TLSv1_2"}, []int{http.StatusServiceUnavailable}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			certtest.Mount(t, dir, ca.Pair(t, tt.gate), ca)
			settings := e2e.MutualTLS(dir)
			settings["RATE_LIMIT_RUN_BURST"] = "2"
			s := e2e.StartEnvoy(t, e2e.TLSConfig(t, envoy, tt.replace...), api.Addr, e2e.StartGate(t, settings).GRPC)
			caller := e2e.Caller(t)
			for _, want := range tt.want {
				if r := s.Post(t, "/run", caller); r.Status != want {
					t.Errorf("got %d %s, want %d", r.Status, r.Body, want)
				}
			}
		})
	}
}

// TestCertificatesChange goes to another CA while requests come: both sides first trust both, then get new
// certificates, then forget the old CA. No request fails, and what is broken changes nothing.
func TestCertificatesChange(t *testing.T) {
	t.Parallel()
	before, after := certtest.NewCA(t), certtest.NewCA(t)
	gate, envoy := t.TempDir(), t.TempDir()
	oldClient, newGate, newEnvoy := before.Pair(t, e2e.EnvoyName), after.Pair(t, e2e.GateName), after.Pair(t, e2e.EnvoyName)
	certtest.Mount(t, gate, before.Pair(t, e2e.GateName), before)
	certtest.Mount(t, envoy, oldClient, before)
	settings := e2e.MutualTLS(gate)
	settings["RATE_LIMIT_ENABLED"] = "false"
	// Nothing here is about time, and the machine may be busy.
	config := e2e.TLSConfig(t, envoy, "                timeout: 0.25s", "                timeout: 10s")
	s := e2e.Start(t, e2e.Options{Config: config, NoRedis: true, Settings: settings})
	g := s.Gates[0]

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var answered atomic.Int64
	failed := make(chan error, 1)
	go func() { failed <- askOnAndOn(ctx, "http://"+s.Addr+"/assistant", &answered) }()
	mount := func(dir string, pair certtest.Pair, cas ...*certtest.CA) {
		t.Helper()
		certtest.Mount(t, dir, pair, cas...)
		n := answered.Load() + 10
		polltest.Until(t, 20*time.Second, "ten requests to be answered", func() error {
			select {
			case err := <-failed:
				t.Fatalf("a request failed: %v", err)
			default:
			}
			if answered.Load() < n {
				return errors.New("not yet")
			}
			return nil
		})
	}
	trust := &tls.Config{RootCAs: certtest.Pool(before, after), ServerName: e2e.GateName}
	meets := func(what string, client, gate certtest.Pair) {
		t.Helper()
		polltest.Until(t, 20*time.Second, what, func() error {
			config := trust.Clone()
			config.Certificates = []tls.Certificate{client.TLS(t)}
			got, err := askHealth(t, g.GRPC, credentials.NewTLS(config))
			if err == nil && !got.Equal(gate.TLS(t).Leaf) {
				err = errors.New("met with another certificate")
			}
			return err
		})
	}

	mount(gate, before.Pair(t, e2e.GateName), before, after)
	mount(envoy, oldClient, before, after)
	mount(gate, newGate, before, after)
	meets("the gate's new certificate", oldClient, newGate)
	mount(envoy, newEnvoy, before, after)
	serial := fmt.Sprintf("%x", newEnvoy.TLS(t).Leaf.SerialNumber)
	polltest.Until(t, 20*time.Second, "Envoy to read its new certificate", func() error {
		resp, err := http.Get("http://" + s.Admin + "/certs")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if body, _ := io.ReadAll(resp.Body); !strings.Contains(string(body), serial) {
			return fmt.Errorf("no serial number %s in %s", serial, body)
		}
		return nil
	})
	mount(gate, newGate, after)
	mount(envoy, newEnvoy, after)
	meets("the new CA", newEnvoy, newGate)
	old := trust.Clone()
	old.Certificates = []tls.Certificate{oldClient.TLS(t)}
	if _, err := askHealth(t, g.GRPC, credentials.NewTLS(old)); err == nil {
		t.Error("a client of the old CA was let in")
	}

	broken := after.Pair(t, e2e.GateName)
	broken.Key = broken.Key[:len(broken.Key)/2]
	mount(gate, broken, after)
	meets("the last good certificate", newEnvoy, newGate)
	g.WaitLog(t, regexp.MustCompile(`cannot be used.*"port":"grpc".*GRPC_TLS_KEY_FILE`))
	if got, want := g.Metrics(t)[`refrakt_gate_certificate_not_after_timestamp_seconds{port="grpc"}`], newGate.TLS(t).Leaf.NotAfter.Unix(); got != float64(want) {
		t.Errorf("the metric says %v, want %v of what is in force", got, want)
	}
	stop()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("a request failed: %v", err)
	}

	// Envoy kept its connections all the time. Made to connect anew, it does so with what it has read.
	certtest.Mount(t, gate, newGate, after)
	g.Stop(t)
	settings["GRPC_ADDR"] = g.GRPC
	e2e.StartGate(t, settings)
	polltest.Until(t, 20*time.Second, "Envoy to connect anew", func() error {
		if r := s.Post(t, "/assistant"); r.Status != http.StatusOK {
			return fmt.Errorf("got %d", r.Status)
		}
		return nil
	})
}

// TestClientsRefused: who has no right to ask is not answered, and who does not even try is cut off.
func TestClientsRefused(t *testing.T) {
	t.Parallel()
	ca, other := certtest.NewCA(t), certtest.NewCA(t)
	dir := t.TempDir()
	certtest.Mount(t, dir, ca.Pair(t, e2e.GateName), ca)
	g := e2e.StartGate(t, e2e.MutualTLS(dir))
	client := func(ca *certtest.CA, names ...string) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{ca.Pair(t, names...).TLS(t)}}
	}
	older := client(ca, e2e.EnvoyName)
	older.MaxVersion = tls.VersionTLS12
	// What such a client is told depends on how far it has come; why it is refused is tested in certs.
	for name, tt := range map[string]struct {
		config *tls.Config // nil: plain text
		want   codes.Code
	}{
		"of a name":       {client(ca, "envoy.internal"), codes.OK},
		"no certificate":  {&tls.Config{}, codes.Unavailable},
		"another CA":      {client(other, e2e.EnvoyName), codes.Unavailable},
		"another name":    {client(ca, "worker.internal"), codes.Unavailable},
		"TLS 1.2 at most": {older, codes.Unavailable},
		"plain text":      {nil, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			creds := insecure.NewCredentials()
			if tt.config != nil {
				tt.config.RootCAs, tt.config.ServerName = certtest.Pool(ca), e2e.GateName
				creds = credentials.NewTLS(tt.config)
			}
			if _, err := askHealth(t, g.GRPC, creds); status.Code(err) != tt.want {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	t.Run("says nothing", func(t *testing.T) {
		t.Parallel()
		conn, err := net.Dial("tcp", g.GRPC)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("not cut off in 30 s: %v", err)
		}
	})
	t.Run("TLS 1.2 where it may", func(t *testing.T) {
		t.Parallel()
		settings := e2e.MutualTLS(dir)
		settings["TLS_MIN_VERSION"] = "1.2"
		config := older.Clone()
		config.RootCAs, config.ServerName = certtest.Pool(ca), e2e.GateName
		if _, err := askHealth(t, e2e.StartGate(t, settings).GRPC, credentials.NewTLS(config)); err != nil {
			t.Error(err)
		}
	})
}

// TestTelemetryTLS: metrics and health by https, HTTP/1.1 and 2, whose certificate is replaced file by file.
func TestTelemetryTLS(t *testing.T) {
	t.Parallel()
	ca := certtest.NewCA(t)
	dir := t.TempDir()
	first, second := ca.Pair(t, "127.0.0.1"), ca.Pair(t, "127.0.0.1")
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	put := func(file string, content []byte) {
		t.Helper()
		if err := errors.Join(os.WriteFile(file+".new", content, 0o600), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	put(cert, first.Cert)
	put(key, first.Key)
	g := e2e.StartGate(t, map[string]string{"TELEMETRY_TLS_CERT_FILE": cert, "TELEMETRY_TLS_KEY_FILE": key})
	get := func(path string, http2 bool) *http.Response {
		t.Helper()
		transport := &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{RootCAs: certtest.Pool(ca)}}
		defer transport.CloseIdleConnections()
		client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
		resp, err := client.Get("https://" + g.Telemetry + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: got %d", path, resp.StatusCode)
		}
		return resp
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		for major, http2 := range map[int]bool{1: false, 2: true} {
			if resp := get(path, http2); resp.ProtoMajor != major {
				t.Errorf("%s: by %s, want HTTP/%d", path, resp.Proto, major)
			}
		}
	}
	if r := g.Get(t, "/metrics"); r.Status != http.StatusBadRequest {
		t.Errorf("plain text: got %d, want 400", r.Status)
	}
	put(cert, second.Cert)
	if got := get("/healthz", true).TLS.PeerCertificates[0]; !got.Equal(first.TLS(t).Leaf) {
		t.Error("a certificate without its key counts")
	}
	put(key, second.Key)
	if got := get("/healthz", true).TLS.PeerCertificates[0]; !got.Equal(second.TLS(t).Leaf) {
		t.Error("the old certificate is still in force")
	}
}

// TestCheckByTLS: the check command asks a gate with TLS, by flags or by the gate's own settings.
func TestCheckByTLS(t *testing.T) {
	t.Parallel()
	ca := certtest.NewCA(t)
	dir, client := t.TempDir(), t.TempDir()
	certtest.Mount(t, dir, ca.Pair(t, e2e.GateName), ca)
	certtest.Mount(t, client, ca.Pair(t, e2e.EnvoyName), ca)
	mutual := e2e.MutualTLS(dir)
	mutual["GRPC_ADDR"] = e2e.StartGate(t, mutual).GRPC
	plain := map[string]string{
		"GRPC_ADDR":          "unix://" + filepath.Join(socketDir(t), "gate.sock"),
		"GRPC_TLS_CERT_FILE": mutual["GRPC_TLS_CERT_FILE"], "GRPC_TLS_KEY_FILE": mutual["GRPC_TLS_KEY_FILE"],
	}
	e2e.StartGate(t, plain)
	certificate := []string{"--tls-cert", filepath.Join(client, "tls.crt"), "--tls-key", filepath.Join(client, "tls.key")}
	byFlags := append([]string{"--addr", mutual["GRPC_ADDR"], "--tls-ca", filepath.Join(client, "ca.crt"), "--tls-server-name", e2e.GateName}, certificate...)
	for name, tt := range map[string]struct {
		settings map[string]string
		args     []string
		code     int
		want     string
	}{
		"by flags":                          {nil, byFlags, 0, "allowed"},
		"by settings":                       {mutual, certificate, 0, "allowed"},
		"by settings, no certificate asked": {plain, nil, 0, "allowed"},
		"no certificate":                    {mutual, nil, 2, "give --tls-cert and --tls-key"},
		"no key":                            {mutual, certificate[:2], 2, "--tls-key"},
		"plain text":                        {nil, byFlags[:2], 2, "ask the gate at"},
		"the system's CAs":                  {nil, append([]string{"--addr", mutual["GRPC_ADDR"], "--tls-server-name", e2e.GateName}, certificate...), 2, "unknown authority"},
		"another name":                      {nil, append(append([]string{}, byFlags...), "--tls-server-name", "x.internal"), 2, "not x.internal"},
		"no such CA file":                   {nil, []string{"--addr", "127.0.0.1:1", "--tls-ca", "/no/ca"}, 2, "read --tls-ca: open /no/ca"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out := e2e.RunGate(t, tt.settings, append([]string{"check", "--timeout", "20s"}, tt.args...)...)
			if code != tt.code || !strings.Contains(out, tt.want) {
				t.Errorf("exit %d, want %d and %q:\n%s", code, tt.code, tt.want, out)
			}
		})
	}
}

// askHealth asks a gate for its health and returns the certificate that it shows, if it shows one.
func askHealth(t *testing.T, addr string, creds credentials.TransportCredentials) (*x509.Certificate, error) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var met peer.Peer
	if _, err := healthpb.NewHealthClient(conn).Check(deadline(t), &healthpb.HealthCheckRequest{}, grpc.Peer(&met)); err != nil {
		return nil, err
	}
	if info, ok := met.AuthInfo.(credentials.TLSInfo); ok {
		return info.State.PeerCertificates[0], nil
	}
	return nil, nil
}

// askOnAndOn sends requests one after the other until ctx ends, or one is not answered with 200.
func askOnAndOn(ctx context.Context, url string, answered *atomic.Int64) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		switch {
		case err != nil:
			return err
		case resp.StatusCode != http.StatusOK:
			return fmt.Errorf("got %d", resp.StatusCode)
		}
		answered.Add(1)
	}
}
