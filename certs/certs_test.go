package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/internal/certtest"
	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
)

// port is a port with TLS, its files, and what it logs.
type port struct {
	*Files

	cfg    Config
	server *tls.Config // one for all connections
	reg    *prometheus.Registry
	log    *bytes.Buffer
}

func open(t *testing.T, pair certtest.Pair, clientCA []byte, names ...string) *port {
	t.Helper()
	dir := t.TempDir()
	p := &port{
		cfg: Config{
			Port: "grpc", CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), ClientNames: names,
			MinVersion: tls.VersionTLS13, Protocols: []string{"h2"},
		},
		reg: prometheus.NewRegistry(), log: new(bytes.Buffer),
	}
	put(t, p.cfg.CertFile, pair.Cert)
	put(t, p.cfg.KeyFile, pair.Key)
	if clientCA != nil {
		p.cfg.ClientCAFile = filepath.Join(dir, "ca.crt")
		put(t, p.cfg.ClientCAFile, clientCA)
	}
	var err error
	if p.Files, err = Load(p.cfg, p.reg, slog.New(slog.NewTextHandler(p.log, nil))); err != nil {
		t.Fatal(err)
	}
	p.server = p.Server()
	return p
}

func put(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// connect makes a connection over which the server sends a byte. It returns the state
// that the client sees, or the errors of both.
func (p *port) connect(t *testing.T, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	near, far := socketPair(t)
	served := make(chan error, 1)
	go func() {
		defer far.Close()
		conn := tls.Server(far, p.server)
		err := conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte{1})
		}
		served <- err
	}()
	conn := tls.Client(near, client)
	_, err := conn.Read(make([]byte, 1)) // with the tickets, if there are any
	near.Close()
	return conn.ConnectionState(), errors.Join(<-served, err)
}

// socketPair returns the two ends of a connection, which is closed with the test.
func socketPair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, conn := range []net.Conn{near, far} {
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return near, far
}

// serverName returns the name in the certificate that a new connection gets.
func (p *port) serverName(t *testing.T) string {
	t.Helper()
	state, err := p.connect(t, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(state.PeerCertificates[0].DNSNames, ",")
}

// TestFilesChange: a new connection gets what the files hold if they can be used, and
// otherwise what they held before.
func TestFilesChange(t *testing.T) {
	ca := certtest.NewCA(t)
	one, two, three := ca.Pair(t, "one"), ca.Pair(t, "two"), ca.Pair(t, "three")
	p := open(t, one, nil)
	steps := []struct {
		do   string
		file string
		hold []byte
		want string
	}{
		{"nothing", "", nil, "one"},
		{"the certificate first", p.cfg.CertFile, two.Cert, "one"},
		{"then its key", p.cfg.KeyFile, two.Key, "two"},
		{"the key first", p.cfg.KeyFile, three.Key, "two"},
		{"then its certificate", p.cfg.CertFile, three.Cert, "three"},
		{"half a certificate", p.cfg.CertFile, three.Cert[:len(three.Cert)/2], "three"},
		{"nothing in it", p.cfg.CertFile, nil, "three"},
		{"the certificate of before", p.cfg.CertFile, three.Cert, "three"},
		{"a chain that is cut off", p.cfg.CertFile, append(bytes.Clone(three.Cert), ca.Cert[:len(ca.Cert)-5]...), "three"},
		{"a whole chain", p.cfg.CertFile, append(bytes.Clone(three.Cert), ca.Cert...), "three"},
	}
	for _, s := range steps {
		if s.file != "" {
			put(t, s.file, s.hold)
		}
		if got := p.serverName(t); got != s.want {
			t.Errorf("%s: met %q, want %q", s.do, got, s.want)
		}
	}
	if err := os.Remove(p.cfg.KeyFile); err != nil {
		t.Fatal(err)
	}
	if got := p.serverName(t); got != "three" {
		t.Errorf("without a key: met %q", got)
	}
	// Warnings: two pairs half replaced, a half and then an empty certificate (one), a chain cut off, no key.
	if bad, good := strings.Count(p.log.String(), "cannot be used"), strings.Count(p.log.String(), "have changed"); bad != 5 || good != 3 {
		t.Errorf("%d complaints and %d changes are logged, want 5 and 3:\n%s", bad, good, p.log)
	}
	if strings.Contains(p.log.String(), "PRIVATE") || strings.Contains(p.log.String(), strings.Split(string(three.Key), "\n")[1]) {
		t.Error("the log shows a key")
	}
}

// TestKubernetesSecret: a mounted Secret is a folder of links into another folder, which
// Kubernetes replaces as a whole.
func TestKubernetesSecret(t *testing.T) {
	ca, other := certtest.NewCA(t), certtest.NewCA(t)
	dir := t.TempDir()
	certtest.Mount(t, dir, ca.Pair(t, "one"), ca)
	cfg := Config{Port: "grpc", MinVersion: tls.VersionTLS13, CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), ClientCAFile: filepath.Join(dir, "ca.crt")}
	files, err := Load(cfg, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	p := &port{Files: files, server: files.Server()}
	// A client that resumes its session if it can.
	client := &tls.Config{
		RootCAs: certtest.Pool(ca, other), ServerName: "one", Certificates: []tls.Certificate{ca.Pair(t, "envoy").TLS(t)},
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
	}
	for range 2 {
		state, err := p.connect(t, client)
		if err != nil {
			t.Fatal(err)
		}
		if state.DidResume {
			t.Error("a session was resumed: its certificate was not looked at")
		}
	}
	certtest.Mount(t, dir, other.Pair(t, "one"), other)
	if _, err := p.connect(t, client); err == nil {
		t.Error("the CA is another, and the client of the old one was let in")
	}
	client.Certificates = []tls.Certificate{other.Pair(t, "envoy").TLS(t)}
	state, err := p.connect(t, client)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: certtest.Pool(other)}); err != nil {
		t.Errorf("not met with the new certificate: %v", err)
	}
}

func TestClients(t *testing.T) {
	ca, other := certtest.NewCA(t), certtest.NewCA(t)
	p := open(t, ca.Pair(t, "gate"), ca.Cert, "envoy.internal", "spiffe://refrakt/envoy")
	tests := map[string]struct {
		client *tls.Config
		want   string // of the error; "": let in
	}{
		"by DNS name":       {&tls.Config{Certificates: []tls.Certificate{ca.Pair(t, "x", "envoy.internal").TLS(t)}}, ""},
		"by SPIFFE ID":      {&tls.Config{Certificates: []tls.Certificate{ca.Pair(t, "spiffe://refrakt/envoy").TLS(t)}}, ""},
		"no certificate":    {&tls.Config{}, "didn't provide a certificate"},
		"of another CA":     {&tls.Config{Certificates: []tls.Certificate{other.Pair(t, "envoy.internal").TLS(t)}}, "unknown authority"},
		"of another name":   {&tls.Config{Certificates: []tls.Certificate{ca.Pair(t, "spiffe://refrakt/envoy/2").TLS(t)}}, "none of GRPC_TLS_CLIENT_NAMES"},
		"of no name":        {&tls.Config{Certificates: []tls.Certificate{ca.Pair(t).TLS(t)}}, "none of GRPC_TLS_CLIENT_NAMES"},
		"TLS 1.2":           {&tls.Config{MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{ca.Pair(t, "envoy.internal").TLS(t)}}, "unsupported versions"},
		"h2 among its ALPN": {&tls.Config{NextProtos: []string{"http/1.1", "h2"}, Certificates: []tls.Certificate{ca.Pair(t, "envoy.internal").TLS(t)}}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.client.RootCAs, tt.client.ServerName = certtest.Pool(ca), "gate"
			if tt.client.NextProtos == nil {
				tt.client.NextProtos = []string{"h2"}
			}
			state, err := p.connect(t, tt.client)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want == "" && state.NegotiatedProtocol != "h2":
				t.Errorf("ALPN chose %q, want h2", state.NegotiatedProtocol)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	t.Run("no TLS", func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close()
		go func() { _, _ = io.WriteString(near, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") }()
		if err := tls.Server(far, p.server).HandshakeContext(t.Context()); err == nil || !strings.Contains(err.Error(), "does not look like a TLS handshake") {
			t.Errorf("got %v", err)
		}
	})
}

func TestMetrics(t *testing.T) {
	ca := certtest.NewCA(t)
	pair := ca.Pair(t, "gate")
	p := open(t, ca.Pair(t, "before"), nil)
	put(t, p.cfg.CertFile, pair.Cert)
	put(t, p.cfg.KeyFile, pair.Key)
	leaf := pair.TLS(t).Leaf
	for name, want := range map[string]int64{
		"refrakt_gate_certificate_not_before_timestamp_seconds": leaf.NotBefore.Unix(),
		"refrakt_gate_certificate_not_after_timestamp_seconds":  leaf.NotAfter.Unix(),
	} {
		if got := metrictest.Value(t, p.reg, name, "port", "grpc"); got != float64(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if !strings.Contains(p.log.String(), "have changed") {
		t.Error("a scrape does not look at the files")
	}
}

// TestCutOff: the beginning of a file is refused, unless it ends after a whole block.
func TestCutOff(t *testing.T) {
	ca := certtest.NewCA(t)
	bundle := "# comment\n" + string(ca.Cert) + "\n" + string(certtest.NewCA(t).Cert) + string(ca.Pair(t, "x").Key)
	if certs, err := certificates(bundle); err != nil || len(certs) != 2 {
		t.Fatalf("%d certificates, %v; want 2", len(certs), err)
	}
	for i := range bundle {
		part := bundle[:i]
		whole := strings.Count(part, "-----END CERTIFICATE-----") + strings.Count(part, "-----END PRIVATE KEY-----")
		if certs, err := certificates(part); err == nil && strings.Count(part, "-----BEGIN ") != whole {
			t.Errorf("%d bytes: taken for a whole with %d certificates", i, len(certs))
		}
	}
}

func TestValidate(t *testing.T) {
	ca := certtest.NewCA(t)
	p := open(t, ca.Pair(t, "gate"), ca.Cert, "envoy")
	other, empty := filepath.Join(t.TempDir(), "other"), filepath.Join(t.TempDir(), "empty")
	put(t, other, ca.Pair(t, "gate").Key)
	put(t, empty, nil)
	tests := map[string]struct {
		change func(c *Config)
		want   []string
	}{
		"good":            {func(*Config) {}, nil},
		"plain text":      {func(c *Config) { *c = Config{Port: "grpc"} }, nil},
		"no key":          {func(c *Config) { c.KeyFile = "" }, []string{"GRPC_TLS_CERT_FILE: GRPC_TLS_KEY_FILE is not set"}},
		"no certificate":  {func(c *Config) { c.CertFile = "" }, []string{"GRPC_TLS_KEY_FILE: GRPC_TLS_CERT_FILE is not set"}},
		"only a CA":       {func(c *Config) { c.CertFile, c.KeyFile = "", "" }, []string{"GRPC_TLS_CLIENT_CA_FILE: GRPC_TLS_CERT_FILE is not set"}},
		"names but no CA": {func(c *Config) { c.ClientCAFile = "" }, []string{"GRPC_TLS_CLIENT_NAMES: GRPC_TLS_CLIENT_CA_FILE is not set"}},
		"a pattern":       {func(c *Config) { c.ClientNames = []string{"a", "*.b"} }, []string{`GRPC_TLS_CLIENT_NAMES: "*.b" is not a whole`}},
		"an empty name":   {func(c *Config) { c.ClientNames = []string{"a", ""} }, []string{`GRPC_TLS_CLIENT_NAMES: "" is not a whole`}},
		"away": {func(c *Config) { c.CertFile, c.KeyFile, c.ClientCAFile = "/no/c", "/no/k", "/no/a" }, []string{
			"GRPC_TLS_CERT_FILE: open /no/c", "GRPC_TLS_KEY_FILE: open /no/k", "GRPC_TLS_CLIENT_CA_FILE: open /no/a",
		}},
		"another's key": {func(c *Config) { c.KeyFile = other }, []string{"GRPC_TLS_KEY_FILE: " + other + ": tls: private key does not match"}},
		"empty": {func(c *Config) { c.CertFile, c.ClientCAFile = empty, empty }, []string{
			"GRPC_TLS_CERT_FILE: " + empty + ": holds no certificate", "GRPC_TLS_CLIENT_CA_FILE: " + empty + ": holds no certificate",
		}},
		"a key for a certificate": {func(c *Config) { c.CertFile = c.KeyFile }, []string{"GRPC_TLS_CERT_FILE: " + p.cfg.KeyFile + ": holds no certificate"}},
	}
	for name, tt := range tests {
		cfg := p.cfg
		tt.change(&cfg)
		errs := cfg.Validate()
		if len(errs) != len(tt.want) {
			t.Errorf("%s: %v, want %q", name, errs, tt.want)
			continue
		}
		for i, want := range tt.want {
			if !strings.HasPrefix(errs[i].Error(), want) {
				t.Errorf("%s: %q, want %q", name, errs[i], want)
			}
		}
	}
}
