package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

func TestAccessLog(t *testing.T) {
	t.Parallel()
	s := e2e.Start(t, e2e.Options{NoRedis: true, Settings: map[string]string{"RATE_LIMIT_RUN_BURST": "1"}})
	caller := e2e.Caller(t)
	s.Post(t, "/run?user_id=hush", caller)
	s.Post(t, "/run?user_id=hush", caller)
	s.Get(t, "/ping?user_id=hush", caller)
	polltest.Until(t, 10*time.Second, "three lines in the access log", func() error {
		if n := strings.Count(s.Log(), `"request_id"`); n != 3 {
			return fmt.Errorf("%d lines", n)
		}
		return nil
	})
	for _, want := range []string{
		`"reason":"ok"`, `"reason":"rate_limited"`, `"reason":null`, `"policy":"run"`, `"verdict":"deny"`, `"path":"/run"`,
	} {
		if !strings.Contains(s.Log(), want) {
			t.Errorf("access log: no %s", want)
		}
	}
	if strings.Contains(s.Log(), "hush") {
		t.Error("access log: it holds the query")
	}
}

// Of two gates behind one Envoy the one that is left does the work.
func TestOneGateIsLost(t *testing.T) {
	t.Parallel()
	s := e2e.Start(t, e2e.Options{Gates: 2, OneEnvoy: true})
	s.Gates[0].Kill(t)
	answered := 0
	polltest.Until(t, 30*time.Second, "ten answers in a row", func() error {
		if r := s.Post(t, "/assistant", e2e.Caller(t)); r.Status != http.StatusOK {
			answered = 0
			return fmt.Errorf("got %d", r.Status)
		}
		if answered++; answered < 10 {
			return errors.New("not yet")
		}
		return nil
	})
}

// A preflight costs no token, in front of a browser's request or not.
func TestPreflightIsFree(t *testing.T) {
	t.Parallel()
	s := e2e.Start(t, e2e.Options{NoRedis: true, Settings: map[string]string{"RATE_LIMIT_RUN_BURST": "1"}})
	caller := e2e.Caller(t)
	preflight := []string{caller, "Origin: https://app.test", "Access-Control-Request-Method: POST"}
	for range 5 {
		s.Raw(t, "OPTIONS /run HTTP/1.1", preflight...)
	}
	if r := s.Post(t, "/run", caller); r.Status != http.StatusAccepted {
		t.Errorf("after preflights: got %d, want 202", r.Status)
	}
	if r := s.Raw(t, "OPTIONS /run HTTP/1.1", preflight...); r.Status == http.StatusTooManyRequests {
		t.Error("a preflight was limited")
	}
}
