package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/certtest"
)

func runCLI(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(args, environ, &out, &errs)
	return code, out.String(), errs.String()
}

// TestBadSettings: serve and config name all mistakes at once, and show no secret.
func TestBadSettings(t *testing.T) {
	environ := []string{
		"QUEUE_URL=http://user:hunter2@redis",
		"RATE_LIMIT_REDIS_URL=redis://:hunter2@redis:port",
		"PROMETHEUS_BEARER_TOKEN=hunter2 hunter2",
		"GRPC_ADDR=9001",
		"GRPC_CODEC=fast",
		"TELEMETRY_ADDR=localhost",
		"RATE_LIMIT_RUN_BURST=ten",
		"RATE_LIMIT_RUN_PER_MINUTE=0",
		"RATE_LIMIT_ASSISTANT_BURST=-1",
		"RATE_LIMIT_ASSISTANT_PER_MINUTE=1e9",
		"RATE_LIMIT_PREMIUM_MULTIPLIER=NaN",
		"RATE_LIMIT_FALLBACK_SHARE=1.5",
		"RATE_LIMIT_ENABLED=perhaps",
		"RATE_LIMIT_SHADOW=2",
		"RATE_LIMIT_FAILURE_MODE=open",
		"QUEUE_FAILURE_MODE=local",
		"RATE_LIMIT_HEADERS=yes",
		"CLIENT_IP_HEADER=not a header",
		"TRUSTED_PROXIES=somewhere",
		"USER_ID_SOURCES=cookie",
		"JOB_SOURCES=other",
		"MAX_CONCURRENT_CHECKS=0",
		"QUEUE_MAX_PENDING=-5",
		"QUEUE_MAX_AGE_SECONDS=soon",
		"QUEUE_SAMPLE_INTERVAL=0",
		"QUEUE_RETRY_DELAY=-1",
		"PROMETHEUS_METRICS_ROUTE=metrics",
		"PROMETHEUS_ENABLED=si",
		"PROMETHEUS_QUEUE_POLL_INTERVAL=5 minutes",
		"LOG_LEVEL=loud",
		"LOG_FORMAT=xml",
		"REDIS_TIMEOUT=0",
		"STARTUP_TIMEOUT=0",
		"SHUTDOWN_DRAIN=-1s",
		"SHUTDOWN_TIMEOUT=0",
		"GRPC_TLS_CERT_FILE=/does/not/exist",
		"GRPC_TLS_KEY_FILE=/dev/null/not",
		"GRPC_TLS_CLIENT_NAMES=*.internal,envoy",
		"GRPC_TLS_CLIENT_CA_FILE=/does/not/exist/either",
		"TELEMETRY_TLS_CERT_FILE=/does/not/exist",
		"TLS_MIN_VERSION=1.1",
	}
	for _, command := range []string{"serve", "config"} {
		code, stdout, stderr := runCLI(t, environ, command)
		if code != exitUsage {
			t.Errorf("%s: exit %d, want %d", command, code, exitUsage)
		}
		for _, kv := range environ {
			name, _, _ := strings.Cut(kv, "=")
			if n := strings.Count(stderr, "\n  "+name+": "); n != 1 {
				t.Errorf("%s: %s is named %d times, want once", command, name, n)
			}
		}
		// One wording in all packages.
		for _, want := range []string{
			"QUEUE_MAX_PENDING: -5 is not between 0 and 1000000000", "MAX_CONCURRENT_CHECKS: 0 is not between 1 and 1000000",
			"RATE_LIMIT_FALLBACK_SHARE: 1.5 is not between 1e-06 and 1", "SHUTDOWN_DRAIN: -1s is not between 0s and 1h0m0s",
			`QUEUE_FAILURE_MODE: "local" is none of allow, deny`, `LOG_FORMAT: "xml" is none of json, text`, `TLS_MIN_VERSION: "1.1" is none of 1.2, 1.3`,
		} {
			if !strings.Contains(stderr, "\n  "+want+"\n") {
				t.Errorf("%s: no line %q", command, want)
			}
		}
		if strings.Contains(stdout+stderr, "hunter2") {
			t.Errorf("%s shows a secret:\n%s%s", command, stdout, stderr)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s%s", command, stdout, stderr)
		}
	}
}

func TestGoodSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("from-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, errs := loadConfig(toMap([]string{
		"QUEUE_MAX_AGE_SECONDS=2.5", "QUEUE_SAMPLE_INTERVAL=250ms", "PROMETHEUS_QUEUE_POLL_INTERVAL=5", "RATE_LIMIT_ENABLED=Off",
		"PROMETHEUS_ENABLED=YES", "CLIENT_IP_HEADER=", "QUEUE_MAX_PENDING=", "PROMETHEUS_BEARER_TOKEN_FILE=" + file, "LOG_LEVEL=debug",
		"TRUSTED_PROXIES=none", "GRPC_ADDR=unix:///run/gate.sock",
	}))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if cfg.Policy.MaxAge != 2500*time.Millisecond || cfg.Queue.SampleInterval != 250*time.Millisecond || cfg.Queue.PollInterval != 5*time.Second {
		t.Errorf("durations: %v, %v, %v", cfg.Policy.MaxAge, cfg.Queue.SampleInterval, cfg.Queue.PollInterval)
	}
	if cfg.Authz.LimitEnabled || !cfg.Telemetry.MetricsEnabled {
		t.Error("booleans are read wrongly")
	}
	if cfg.Authz.ClientIPHeader != "" {
		t.Errorf("CLIENT_IP_HEADER set to nothing is %q", cfg.Authz.ClientIPHeader)
	}
	if cfg.Policy.MaxPending != 40 {
		t.Errorf("QUEUE_MAX_PENDING set to nothing is %d, want the default", cfg.Policy.MaxPending)
	}
	if cfg.Telemetry.BearerToken != "from-a-file" {
		t.Errorf("token %q, want the file's", cfg.Telemetry.BearerToken)
	}
}

func TestSecretFiles(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		environ []string
		want    string
	}{
		"both":    {[]string{"QUEUE_URL=redis://x", "QUEUE_URL_FILE=/x"}, "QUEUE_URL_FILE: QUEUE_URL is set too"},
		"missing": {[]string{"QUEUE_URL_FILE=/does/not/exist"}, "QUEUE_URL_FILE: open /does/not/exist"},
		"empty":   {[]string{"PROMETHEUS_BEARER_TOKEN_FILE=" + empty}, "PROMETHEUS_BEARER_TOKEN_FILE: " + empty + " is empty"},
	} {
		if code, _, stderr := runCLI(t, tt.environ, "config"); code != exitUsage || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s: exit %d:\n%s", name, code, stderr)
		}
	}
}

func TestConfigCommand(t *testing.T) {
	code, stdout, stderr := runCLI(t, []string{"QUEUE_URL=rediss://ann:hunter2@redis.example:6380?db=1", "PROMETHEUS_BEARER_TOKEN=hunter2"}, "config")
	if code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, want := range []string{
		"QUEUE_URL=rediss://***:***@redis.example:6380?***\n",
		"PROMETHEUS_BEARER_TOKEN=***\n",
		"QUEUE_MAX_PENDING=40\n",
		"# run: each client IP: plain 10 at once, then 6 a minute; premium 30 at once, then 18 a minute\n",
		"# queue default: full when 40 jobs wait, or the oldest has waited for 10m\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no line %q", want)
		}
	}
	if strings.Contains(stdout, "hunter2") {
		t.Error("a secret is shown")
	}
	if t.Failed() {
		t.Log(stdout)
	}
	// The output is a valid environment.
	var environ []string
	for line := range strings.Lines(stdout) {
		if !strings.HasPrefix(line, "#") && !strings.Contains(line, "***") {
			environ = append(environ, strings.TrimSpace(line))
		}
	}
	if _, errs := loadConfig(toMap(environ)); len(errs) > 0 {
		t.Errorf("the printed settings are not valid: %v", errs)
	}
}

func TestCommandLine(t *testing.T) {
	tests := map[string]struct {
		args []string
		code int
		want string
	}{
		"help":            {[]string{"--help"}, exitOK, "Usage: refrakt-gate"},
		"version":         {[]string{"version"}, exitOK, "refrakt-gate dev"},
		"unknown command": {[]string{"sevre"}, exitUsage, "sevre"},
		"unknown flag":    {[]string{"check", "--nope"}, exitUsage, "--nope"},
		"nobody there":    {[]string{"check", "--addr", "127.0.0.1:1", "--timeout", "200ms"}, exitUsage, "ask the gate at 127.0.0.1:1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := runCLI(t, nil, tt.args...)
			if code != tt.code || !strings.Contains(stdout+stderr, tt.want) {
				t.Errorf("exit %d, want %d and %q:\n%s%s", code, tt.code, tt.want, stdout, stderr)
			}
		})
	}
}

// TestConfigCommandTLS: config prints the settings of TLS in a form that it reads, and says
// which clients are accepted.
func TestConfigCommandTLS(t *testing.T) {
	dir, ca := t.TempDir(), certtest.NewCA(t)
	certtest.Mount(t, dir, ca.Pair(t, "gate"), ca)
	environ := []string{
		"GRPC_TLS_CERT_FILE=" + dir + "/tls.crt", "GRPC_TLS_KEY_FILE=" + dir + "/tls.key", "GRPC_TLS_CLIENT_CA_FILE=" + dir + "/ca.crt",
		"GRPC_TLS_CLIENT_NAMES=envoy.internal,spiffe://refrakt/envoy",
		"TELEMETRY_TLS_CERT_FILE=" + dir + "/tls.crt", "TELEMETRY_TLS_KEY_FILE=" + dir + "/tls.key", "TLS_MIN_VERSION=1.2",
	}
	code, stdout, stderr := runCLI(t, environ, "config")
	if code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, want := range append(environ,
		"# GRPC_ADDR speaks TLS 1.2 or newer; clients need a certificate that is signed by a CA in "+dir+"/ca.crt and is for envoy.internal or spiffe://refrakt/envoy",
		"# TELEMETRY_ADDR speaks https, TLS 1.2 or newer",
	) {
		if !strings.Contains(stdout, want+"\n") {
			t.Errorf("no line %q in:\n%s", want, stdout)
		}
	}
}

// TestSettingsAreComplete: config prints each setting once.
func TestSettingsAreComplete(t *testing.T) {
	cfg, errs := loadConfig(nil)
	if len(errs) > 0 {
		t.Fatalf("defaults: %v", errs)
	}
	var names []string
	for _, s := range effective(cfg) {
		names = append(names, s.name)
	}
	if sorted := slices.Compact(slices.Sorted(slices.Values(names))); len(sorted) != len(names) {
		t.Errorf("a setting is there twice: %v", names)
	}
	for name := range secrets {
		if !slices.Contains(names, name) {
			t.Errorf("secret %s is no setting", name)
		}
	}
}
