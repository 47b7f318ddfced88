package e2e_test

import (
	"net/http"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// The other forms of `/run` and of a caller's headers: behind an Envoy that normalises and one that doesn't, each is
// either refused, not /run at all, or spends from the caller's one bucket.
func TestNoFormOfRunIsFree(t *testing.T) {
	t.Parallel()
	paths := []string{
		"/run", "/r%75n", "/ru%6e", "/%72%75%6e", "//run", "/./run", "/x/../run", "/a/..;/run", "/run/", "/run//", "/run/.",
		"/run%0a", "/run%0A", "/r%75n%0a", "//run%0a", "/run%00", "/run%2f", "/%2frun", "/run;a=1", "/run%3Bx", "/run?x=/ping",
		"/run%20", "/ping/../run", "/ping/..%2frun", "/%2e/run", "/ping/%2e%2e/run", `/\run`, "/run%0d%0a", "/run%5c",
	}
	for name, config := range map[string]string{"shipped": e2e.ShippedConfig, "raw": e2e.RawConfig} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := e2e.Start(t, e2e.Options{Config: config, Settings: map[string]string{
				"RATE_LIMIT_RUN_BURST": "1", "RATE_LIMIT_RUN_PER_MINUTE": "1",
				// This machine's own address, which Envoy appends to X-Forwarded-For, may be a private one.
				"TRUSTED_PROXIES": "127.0.0.0/8",
			}})
			caller := e2e.Caller(t)
			if r := s.Post(t, "/run", caller); r.Status != http.StatusAccepted {
				t.Fatalf("the only token: got %d %s, want 202", r.Status, r.Body)
			}
			for _, path := range paths {
				// 202 is what the API's /run answers.
				if r := s.Raw(t, "POST "+path+" HTTP/1.1", caller); r.Status == http.StatusAccepted {
					t.Errorf("POST %s: the API has started a job", path)
				}
			}
			for _, headers := range [][]string{
				{caller, "X-User-ID: a"}, {caller, "X-User-ID: a", "X-User-ID: b"}, {caller, "X-UserID: \xff"},
				{caller, "X-Forwarded-For: 192.0.2.77"}, {caller, "x-forwarded-for: 192.0.2.1, 192.0.2.2"},
				{caller, "X-RateLimit-Tier: premium,premium"}, {caller, "X-Envoy-Auth-Failure-Mode-Allowed: true"},
			} {
				if r := s.Raw(t, "POST /run HTTP/1.1", headers...); r.Status == http.StatusAccepted {
					t.Errorf("POST /run with %q: a fresh bucket", headers)
				}
			}

			// Without one believable address the caller is the peer, whatever else the headers say.
			if r := s.Raw(t, "POST /run HTTP/1.1"); r.Status != http.StatusAccepted {
				t.Fatalf("the peer's only token: got %d %s, want 202", r.Status, r.Body)
			}
			for _, headers := range [][]string{
				{"CF-Connecting-IP: 192.0.2.70", "CF-Connecting-IP: 192.0.2.71"}, {"CF-Connecting-IP: 192.0.2.70,192.0.2.71"},
				{"CF-Connecting-IP: nobody"}, {"CF-Connecting-IP: "}, {"CF-Connecting-IP: 192.0.2.70\xff"},
				{"X-Forwarded-For: 192.0.2.77"}, {"X-Forwarded-For: 192.0.2.78", "X-Forwarded-For: 192.0.2.79"},
				{"X-Real-IP: 192.0.2.80"}, {"Forwarded: for=192.0.2.81"}, {"X-Envoy-External-Address: 192.0.2.82"},
			} {
				if r := s.Raw(t, "POST /run HTTP/1.1", headers...); r.Status == http.StatusAccepted {
					t.Errorf("POST /run with %q: a fresh bucket", headers)
				}
			}
			if jobs := s.Client.LLen(t.Context(), "saq:default:queued").Val(); jobs != 2 {
				t.Errorf("jobs in the queue: got %d, want the 2 that were paid for", jobs)
			}
		})
	}
}
