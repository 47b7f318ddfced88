package telemetry

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
)

// token is the bearer token that guards the metrics. One from a file follows the
// file: it is read at each scrape, which costs less than to watch it.
type token struct {
	file string // "": the token does not change
	log  *slog.Logger

	mu      sync.Mutex
	value   string // the last good one
	failing bool
}

// is says whether got is the token. A file that can't be read, or holds no token,
// leaves the last good one in force: it may be about to be replaced, and must not
// open the metrics.
func (t *token) is(got string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file != "" {
		t.reread()
	}
	// Hashes are of one length, so comparing them tells nothing about the token's.
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(t.value))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

func (t *token) reread() {
	value, err := readToken(t.file)
	switch {
	case err != nil && !t.failing:
		t.log.Warn("the token file is of no use; the token read last stays in force", "error", err)
	case err == nil && value != t.value:
		t.log.Info("the token of the metrics has changed")
		t.value = value
	}
	t.failing = err != nil
}

func readToken(file string) (string, error) {
	content, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return "", fmt.Errorf("read PROMETHEUS_BEARER_TOKEN_FILE: %w", err)
	}
	value := strings.TrimSpace(string(content))
	if value == "" {
		return "", errors.New("read PROMETHEUS_BEARER_TOKEN_FILE: it is empty")
	}
	return value, validToken(value)
}

// validToken never quotes the token.
func validToken(s string) error {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return errors.New("holds white space or control characters, which no header can carry")
	}
	return nil
}

// guard lets only requests with the bearer token through (RFC 6750).
func (t *token) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !t.is(bearer(r.Header.Get("Authorization"))) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="metrics"`)
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bearer returns the token of an Authorization header. Scrape configurations in
// use name the scheme once themselves and once in the token's file, so it may
// stand there twice.
func bearer(header string) string {
	fields := strings.Fields(header)
	for range 2 {
		if len(fields) > 1 && strings.EqualFold(fields[0], "Bearer") {
			fields = fields[1:]
			if len(fields) == 1 {
				return fields[0]
			}
		}
	}
	return ""
}
