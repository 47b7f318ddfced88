package quota_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/quota"
	"github.com/refrakt-hub/refrakt-gate/quota/quotatest"
)

// realClock is the system's clock. Time passes by waiting.
type realClock struct{}

func (realClock) Now() time.Time { return time.Now() }
func (realClock) Pass(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

func TestMemory(t *testing.T) {
	quotatest.Run(t, func(*testing.T) (quota.Store, quotatest.Clock) { return quota.NewMemory(), realClock{} })
}

func TestRedis(t *testing.T) {
	server := redistest.Start(t)
	quotatest.Run(t, func(t *testing.T) (quota.Store, quotatest.Clock) {
		c := server.Client(t)
		if err := c.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		return quota.NewRedis(c, ""), realClock{}
	})
}

func TestCluster(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, false)
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs, MaxRedirects: -1, ContextTimeoutEnabled: true})
	defer client.Close()
	quotatest.Run(t, func(t *testing.T) (quota.Store, quotatest.Clock) {
		for _, s := range cluster.Primaries {
			if err := s.Client(t).FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		}
		return quota.NewCluster(client, slog.New(slog.DiscardHandler)), realClock{}
	})
}

func TestNewTiers(t *testing.T) {
	type limits struct{ plain, premium quota.Limit }
	tests := map[string]struct {
		capacity, perMinute int64
		multiplier          float64
		want                limits
	}{
		"defaults":             {10, 6, 3, limits{quota.Limit{Capacity: 10, Interval: 10 * time.Second}, quota.Limit{Capacity: 30, Interval: 3333333334}}},
		"under 1 counts as 1":  {10, 6, 0.2, limits{quota.Limit{Capacity: 10, Interval: 10 * time.Second}, quota.Limit{Capacity: 10, Interval: 10 * time.Second}}},
		"capacity rounds down": {1, 60, 1.9, limits{quota.Limit{Capacity: 1, Interval: time.Second}, quota.Limit{Capacity: 1, Interval: 526315790}}},
		"decimals are meant":   {10, 60, 2.3, limits{quota.Limit{Capacity: 10, Interval: time.Second}, quota.Limit{Capacity: 23, Interval: 434782609}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := quota.NewTiers(tt.capacity, tt.perMinute, tt.multiplier)
			if got.Plain != tt.want.plain || got.Premium != tt.want.premium {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// TestNewTiersHold checks the promises of NewTiers for many settings.
func TestNewTiersHold(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 200_000 {
		capacity := 1 + random.Int64N(1+random.Int64N(1_000_000))
		perMinute := 1 + random.Int64N(1+random.Int64N(1_000_000))
		multiplier := min(1+random.Float64()*10, 1_000_000/float64(perMinute))
		tiers := quota.NewTiers(capacity, perMinute, multiplier)
		what := fmt.Sprintf("NewTiers(%d, %d, %v) = %+v", capacity, perMinute, multiplier, tiers)
		for _, l := range []struct {
			limit quota.Limit
			rate  float64
		}{{tiers.Plain, float64(perMinute)}, {tiers.Premium, float64(perMinute) * max(1, multiplier)}} {
			rate := float64(time.Minute) / float64(l.limit.Interval)
			if rate > l.rate*(1+1e-8) || rate < l.rate*0.999 {
				t.Fatalf("%s: a rate of %v, want at most %v and at least 99.9 %% of it", what, rate, l.rate)
			}
		}
		if tiers.Plain.Capacity != capacity || tiers.Premium.Capacity < capacity {
			t.Fatalf("%s: wrong capacity", what)
		}
		if tiers.Plain.Span()+tiers.Premium.Interval <= tiers.Premium.Span() {
			t.Fatalf("%s: an empty plain bucket would have a premium token", what)
		}
	}
}

func TestScaled(t *testing.T) {
	l := quota.Limit{Capacity: 10, Interval: time.Second}
	tests := map[float64]quota.Limit{
		1:    l,
		0.5:  {Capacity: 5, Interval: 2 * time.Second},
		0.25: {Capacity: 2, Interval: 4 * time.Second},
		0.01: {Capacity: 1, Interval: 100 * time.Second},
	}
	for share, want := range tests {
		if got := l.Scaled(share); got != want {
			t.Errorf("Scaled(%v) = %+v, want %+v", share, got, want)
		}
	}
}

func TestResult(t *testing.T) {
	l := quota.Limit{Capacity: 3, Interval: 10 * time.Second}
	tests := []struct {
		debt time.Duration
		left int64
		next time.Duration
	}{
		{0, 3, 0},
		{1, 2, 1},
		{10 * time.Second, 2, 10 * time.Second},
		{11 * time.Second, 1, time.Second},
		{30 * time.Second, 0, 10 * time.Second},
		{21 * time.Second, 0, time.Second},
	}
	for _, tt := range tests {
		r := quota.Result{Limit: l, Debt: tt.debt}
		if r.Remaining() != tt.left || r.NextToken() != tt.next {
			t.Errorf("debt %v: left %d, next %v; want %d, %v", tt.debt, r.Remaining(), r.NextToken(), tt.left, tt.next)
		}
	}
}

func TestValidate(t *testing.T) {
	good := quota.Config{RunBurst: 10, RunPerMinute: 6, AssistantPerMinute: 30, PremiumMultiplier: 3, FallbackShare: 1}
	if errs := good.Validate(); len(errs) > 0 {
		t.Fatalf("defaults: %v", errs)
	}
	bad := quota.Config{RunBurst: 0, RunPerMinute: -1, AssistantBurst: -1, AssistantPerMinute: 0, PremiumMultiplier: math.NaN(), FallbackShare: 0}
	if errs := bad.Validate(); len(errs) != 6 {
		t.Errorf("%d mistakes found, want 6: %v", len(errs), errs)
	}
	for name, tt := range map[string]struct {
		change func(*quota.Config)
		ok     bool
	}{
		"the highest rate, premium":    {func(c *quota.Config) { c.PremiumMultiplier, c.AssistantPerMinute = 1000, 1000 }, true},
		"a rate above it":              {func(c *quota.Config) { c.PremiumMultiplier, c.AssistantPerMinute = 1000, 1001 }, false},
		"the same of the other policy": {func(c *quota.Config) { c.PremiumMultiplier, c.RunPerMinute, c.AssistantPerMinute = 1000, 1001, 1 }, false},
		"a multiplier above 1000":      {func(c *quota.Config) { c.PremiumMultiplier, c.RunPerMinute, c.AssistantPerMinute = 1000.1, 1, 1 }, false},
		"an infinite multiplier":       {func(c *quota.Config) { c.PremiumMultiplier = math.Inf(-1) }, false},
		"a multiplier under 1":         {func(c *quota.Config) { c.PremiumMultiplier = 0 }, true},
	} {
		cfg := good
		tt.change(&cfg)
		if errs := cfg.Validate(); (len(errs) == 0) != tt.ok {
			t.Errorf("%s: %v", name, errs)
		}
	}
}

// TestPolicies: a burst of 0 for the assistant is as much as its rate.
func TestPolicies(t *testing.T) {
	cfg := quota.Config{RunBurst: 10, RunPerMinute: 6, AssistantPerMinute: 30, PremiumMultiplier: 3}
	if got, want := cfg.Run(), quota.NewTiers(10, 6, 3); got != want {
		t.Errorf("run: %+v, want %+v", got, want)
	}
	if got, want := cfg.Assistant(), quota.NewTiers(30, 30, 3); got != want {
		t.Errorf("assistant: %+v, want %+v", got, want)
	}
	cfg.AssistantBurst = 5
	if got, want := cfg.Assistant(), quota.NewTiers(5, 30, 3); got != want {
		t.Errorf("assistant with a burst: %+v, want %+v", got, want)
	}
}

func BenchmarkMemoryTake(b *testing.B) {
	benchmarkTake(b, quota.NewMemory())
}

func BenchmarkRedisTake(b *testing.B) {
	benchmarkTake(b, quota.NewRedis(redistest.Start(b).Client(b), ""))
}

func benchmarkTake(b *testing.B, s quota.Store) {
	limit := quota.Limit{Capacity: 1 << 40, Interval: time.Microsecond}
	requests := make([]quota.Request, 10_000)
	for i := range requests {
		requests[i] = quotatest.Of(limit, quota.Key("run", fmt.Sprint("ip:", i)), quota.Key("run", fmt.Sprint("user:", i)))
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := s.Take(context.Background(), requests[i%len(requests)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
