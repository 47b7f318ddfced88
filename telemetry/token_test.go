package telemetry

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestTokenFile: the token follows its file, also when Kubernetes replaces a symbolic
// link. A file that can't be used changes nothing and opens nothing.
func TestTokenFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	put := func(name, content string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(dir, "new")
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, file); err != nil {
			t.Fatal(err)
		}
	}
	put("1", "s3cret-one\n")
	var log bytes.Buffer
	cfg := Config{MetricsEnabled: true, MetricsRoute: "/metrics", BearerToken: "s3cret-one", BearerTokenFile: file}
	h := NewServer(cfg, prometheus.NewRegistry(), new(Readiness), func() []string { return nil }, testPage, slog.New(slog.NewTextHandler(&log, nil))).Handler()
	want := func(token string, code int) {
		t.Helper()
		if got := get(h, "/metrics", "Bearer "+token).Code; got != code {
			t.Errorf("token %q: %d, want %d", token, got, code)
		}
	}
	want("s3cret-one", 200)
	put("2", "s3cret-two")
	want("s3cret-one", 401)
	want("s3cret-two", 200)
	for i, useless := range []string{"", " \n", "s3cret three"} {
		put(string(rune('a'+i)), useless)
		want("", 401)
		want("s3cret-two", 200)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	want("s3cret-two", 200)
	put("3", "s3cret-three")
	want("s3cret-two", 401)
	want("s3cret-three", 200)

	if n := strings.Count(log.String(), "cannot be used"); n != 1 {
		t.Errorf("a file that cannot be used is logged %d times, want once:\n%s", n, &log)
	}
	if strings.Contains(log.String(), "s3cret") {
		t.Errorf("the log shows a token:\n%s", &log)
	}
}
