package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestRetryAfterOfBuckets: whoever is told to wait by a 429, waits exactly that long, and shares its bucket with nobody
// passes, every time.
func TestRetryAfterOfBuckets(t *testing.T) {
	t.Parallel()
	s := e2e.Start(t, e2e.Options{Gates: 2, Config: e2e.PatientConfig(t), Settings: map[string]string{
		// A token in 1.5 s, or 0.75: no whole second is the exact time.
		"RATE_LIMIT_ASSISTANT_BURST": "3", "RATE_LIMIT_ASSISTANT_PER_MINUTE": "40", "RATE_LIMIT_PREMIUM_MULTIPLIER": "2",
		"REDIS_TIMEOUT": "2s", // a machine that stalls is no outage here
	}})
	var addresses atomic.Uint32
	address := func() string {
		n := addresses.Add(1)
		return fmt.Sprintf("CF-Connecting-IP: 100.64.%d.%d", n>>8, n&255)
	}
	// What is sent with each request of a client.
	kinds := map[string]func(client int) func() []string{
		"by address": func(int) func() []string {
			own := address()
			return func() []string { return []string{own} }
		},
		"premium": func(int) func() []string {
			own := address()
			return func() []string { return []string{own, "X-RateLimit-Tier: premium"} }
		},
		"address and user": func(client int) func() []string {
			own, user := address(), fmt.Sprint("X-User-ID: at one place ", client)
			return func() []string { return []string{own, user} }
		},
		"user at many addresses": func(client int) func() []string {
			user := fmt.Sprint("X-User-ID: at many places ", client)
			return func() []string { return []string{address(), user} }
		},
	}
	play := func(t *testing.T, envoys []*e2e.Envoy) {
		var clients sync.WaitGroup
		for name, kind := range kinds {
			for i := range 20 {
				headers := kind(i)
				clients.Go(func() {
					if err := obey(t, envoys, headers); err != nil {
						t.Errorf("%s: client %d: %v", name, i, err)
					}
				})
			}
		}
		clients.Wait()
	}
	play(t, s.Envoys)

	s.Redis.Kill()
	polltest.Until(t, 20*time.Second, "the gate to use buckets of its own", func() error {
		s.Post(t, "/assistant", address())
		if s.Gates[0].Metrics(t)["refrakt_gate_fallback_active"] != 1 {
			return errors.New("Redis is still asked")
		}
		return nil
	})
	play(t, s.Envoys[:1]) // each gate has its own
}

// obey asks one Envoy after the other until it is limited, and then when it is told to, for three times.
func obey(t *testing.T, envoys []*e2e.Envoy, headers func() []string) error {
	told := false
	for asked, limited := 0, 0; limited < 3; asked++ {
		r, err := envoys[asked%len(envoys)].Ask(t.Context(), "/assistant", "", headers()...)
		switch {
		case err != nil:
			return err
		case r.Status == http.StatusOK:
			told = false
		case r.Status != http.StatusTooManyRequests:
			return fmt.Errorf("got %d %s", r.Status, r.Body)
		case told:
			return fmt.Errorf("limited after it waited, for the %dth time", limited)
		default:
			wait, err := r.Wait()
			if err != nil {
				return err
			}
			e2e.Pass(t, wait)
			told, limited = true, limited+1
		}
	}
	return nil
}
