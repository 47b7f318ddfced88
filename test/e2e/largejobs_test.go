package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestLargeJobsLeaveTheLimitsAlone: 20 jobs with arguments of 1 MiB wait, and three
// gates look at them. A caller with five tokens gets five, and the gates ask Redis all
// the time.
func TestLargeJobsLeaveTheLimitsAlone(t *testing.T) {
	t.Parallel()
	s := e2e.Start(t, e2e.Options{Gates: 3, Settings: map[string]string{
		"RATE_LIMIT_ASSISTANT_BURST": "5", "RATE_LIMIT_ASSISTANT_PER_MINUTE": "1",
	}})
	large := strings.Repeat("x", 1<<20)
	for i := range 20 {
		id := fmt.Sprint("saq:job:default:large", i)
		text := fmt.Sprintf(`{"function": "train", "kwargs": {"x": "%s"}, "queue": "default", "key": "large%d", "queued": %d, "status": "queued"}`,
			large, i, time.Now().UnixMilli())
		_, err := s.Client.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			p.Set(t.Context(), id, text, 0)
			p.ZAdd(t.Context(), "saq:default:incomplete", redis.Z{Member: id})
			p.RPush(t.Context(), "saq:default:queued", id)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	caller := e2e.Caller(t)
	var admitted, asked atomic.Int64
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	var asking sync.WaitGroup
	for _, envoy := range s.Envoys {
		asking.Go(func() {
			for ctx.Err() == nil {
				r, err := envoy.Ask(ctx, "/assistant", `{"message": "hello"}`, caller)
				if err != nil {
					t.Error(err)
					return
				}
				asked.Add(1)
				if r.Status == 200 {
					admitted.Add(1)
				}
			}
		})
	}
	asking.Wait()
	if admitted.Load() != 5 || asked.Load() < 30 {
		t.Errorf("%d of %d requests admitted, want 5 of many", admitted.Load(), asked.Load())
	}
	for _, g := range s.Gates {
		m := g.Metrics(t)
		if m["refrakt_gate_fallback_total"] != 0 || m[`refrakt_gate_breaker_open{breaker="limiter"}`] != 0 || m[`refrakt_gate_breaker_open{breaker="queue"}`] != 0 {
			t.Errorf("%v requests were decided without Redis, breakers %v and %v", m["refrakt_gate_fallback_total"],
				m[`refrakt_gate_breaker_open{breaker="limiter"}`], m[`refrakt_gate_breaker_open{breaker="queue"}`])
		}
		if m["refrakt_queue_pending_jobs"] != 20 || m["refrakt_queue_oldest_pending_seconds"] < 1 {
			t.Errorf("the gate sees %v jobs, the oldest %v s old", m["refrakt_queue_pending_jobs"], m["refrakt_queue_oldest_pending_seconds"])
		}
	}
}
