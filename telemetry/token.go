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

	"github.com/refrakt-hub/refrakt-gate/internal/condition"
)

// token is the bearer token that guards the metrics and the page. A token from a file follows
// the file: each request reads it, which costs less than to watch it.
type token struct {
	file string // empty: the token does not change
	log  *slog.Logger

	usable *condition.Condition

	mu    sync.Mutex
	value string // the newest that could be used
}

// newToken returns the token value, which follows file unless file is empty.
func newToken(value, file string, log *slog.Logger) *token {
	return &token{
		file: file, value: value, log: log,
		usable: condition.New(log, "the token file cannot be used; the token read before stays in force", "the token file can be used again"),
	}
}

// is says whether got is the token. If the file can't be read, or holds no token, the
// token that was read before stays in force: somebody may be about to replace the file,
// and the metrics must not be open meanwhile.
func (t *token) is(got string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file != "" {
		t.reread()
	}
	// The hashes have one length, so the comparison does not tell the length of the token.
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(t.value))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

func (t *token) reread() {
	value, err := readToken(t.file)
	if err != nil {
		t.usable.Fail(err)
		return
	}
	t.usable.Succeed()
	if value != t.value {
		t.log.Info("the token of the metrics has changed")
		t.value = value
	}
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

// validToken returns errors that never quote the token.
func validToken(s string) error {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return errors.New("holds white space or control characters, which a header can't carry")
	}
	return nil
}

// guard lets a request pass if it has the bearer token (RFC 6750).
func (t *token) guard(next http.Handler) http.Handler {
	challenge := func(*http.Request) string { return `Bearer realm="metrics"` }
	return t.guardBy(bearerOf, challenge, next)
}

// guardPage lets a request pass if it has the token as guard wants it, or as the password of
// any user (RFC 7617), which is what a browser can ask for. A browser does not ask while the
// page refreshes itself: the page says then that the token is another one.
func (t *token) guardPage(next http.Handler) http.Handler {
	given := func(r *http.Request) string {
		if _, password, ok := r.BasicAuth(); ok {
			return password
		}
		return bearerOf(r)
	}
	challenge := func(r *http.Request) string {
		if r.Header.Get("X-Requested-With") != "" {
			return `Bearer realm="refrakt-gate"`
		}
		return `Basic realm="refrakt-gate", charset="UTF-8"`
	}
	return t.guardBy(given, challenge, next)
}

// guardBy lets a request pass if what it has given is the token.
func (t *token) guardBy(given, challenge func(*http.Request) string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !t.is(given(r)) {
			w.Header().Set("WWW-Authenticate", challenge(r))
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func bearerOf(r *http.Request) string { return bearer(r.Header.Get("Authorization")) }

// bearer returns the token of an Authorization header. The scheme may be there twice:
// some scrape configurations name it and have it in the token's file, too.
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
