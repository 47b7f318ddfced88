package telemetry

import (
	"bytes"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/http/httptest"
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
		for path, authorization := range map[string]string{"/metrics": "Bearer " + token, "/": basic("anybody", token)} {
			if got := get(h, path, authorization).Code; got != code {
				t.Errorf("%s with the token %q: %d, want %d", path, token, got, code)
			}
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

// basic is an Authorization header as a browser sends it.
func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// TestPageToken: a browser gives the token as the password of any user. The metrics take it as a
// bearer token only.
func TestPageToken(t *testing.T) {
	h := newTestServer(Config{MetricsEnabled: true, MetricsRoute: "/metrics", BearerToken: "s3:cret"}, new(Readiness)).Handler()
	for authorization, want := range map[string]int{
		"":                          401,
		"Basic":                     401,
		"Basic s3:cret":             401,
		basic("s3:cret", ""):        401,
		basic("any", ""):            401,
		basic("any", "s3"):          401,
		basic("any", "s3:cretx"):    401,
		basic("any", "s3:cret"):     200,
		basic("", "s3:cret"):        200,
		basic("mé", "s3:cret"):      200,
		"Bearer s3:cret":            200,
		"Bearer wrong":              401,
		"Bearer " + basic("a", "b"): 401,
	} {
		w := get(h, "/", authorization)
		if w.Code != want || (w.Body.String() == "page") != (want == 200) {
			t.Errorf("Authorization %q: %d %s, want %d", authorization, w.Code, w.Body, want)
		}
		challenge := w.Header().Get("WWW-Authenticate")
		if want == 401 && challenge != `Basic realm="refrakt-gate", charset="UTF-8"` || want == 200 && challenge != "" {
			t.Errorf("Authorization %q: WWW-Authenticate %q", authorization, challenge)
		}
	}
	refresh := httptest.NewRequest(http.MethodGet, "/", nil)
	refresh.Header.Set("X-Requested-With", "fetch")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, refresh)
	if challenge := w.Header().Get("WWW-Authenticate"); w.Code != 401 || challenge != `Bearer realm="refrakt-gate"` {
		t.Errorf("a refresh has a browser ask for a password: %d %q", w.Code, challenge)
	}
	untouched := NewServer(Config{MetricsEnabled: true, MetricsRoute: "/metrics", BearerToken: "s3:cret"}, prometheus.NewRegistry(), new(Readiness), nil,
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a page is made for somebody without the token") }), slog.New(slog.DiscardHandler))
	get(untouched.Handler(), "/", "")
	if got := get(h, "/metrics", basic("any", "s3:cret")).Code; got != 401 {
		t.Errorf("the metrics with a password: %d, want 401", got)
	}
}

// TestPageMethods: nothing but GET and HEAD reaches the page, and no path but its own.
func TestPageMethods(t *testing.T) {
	h := newTestServer(Config{MetricsEnabled: true, MetricsRoute: "/metrics"}, new(Readiness)).Handler()
	for request, want := range map[string]int{
		"GET /": 200, "HEAD /": 200, "GET /?a=b": 200, "POST /": 405, "PUT /": 405, "DELETE /": 405, "OPTIONS /": 405, "GET /index.html": 404,
	} {
		method, path, _ := strings.Cut(request, " ")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", request, w.Code, want)
		}
	}
	if got := get(newTestServer(Config{MetricsRoute: "/metrics"}, new(Readiness)).Handler(), "/", "").Code; got != 404 {
		t.Errorf("without metrics: %d, want 404", got)
	}
}
