package quota_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
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

func TestLimits(t *testing.T) {
	tests := map[string]struct {
		capacity, perMinute int64
		factor              float64
		want                [2]quota.Limit
	}{
		"defaults":             {10, 6, 3, [2]quota.Limit{{Capacity: 10, Interval: 10 * time.Second}, {Capacity: 30, Interval: 3333333334}}},
		"under 1 counts as 1":  {10, 6, 0.2, [2]quota.Limit{{Capacity: 10, Interval: 10 * time.Second}, {Capacity: 10, Interval: 10 * time.Second}}},
		"capacity rounds down": {1, 60, 1.9, [2]quota.Limit{{Capacity: 1, Interval: time.Second}, {Capacity: 1, Interval: 526315790}}},
		"decimals are meant":   {10, 60, 2.3, [2]quota.Limit{{Capacity: 10, Interval: time.Second}, {Capacity: 23, Interval: 434782609}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := quota.Limits(tt.capacity, tt.perMinute, time.Minute, 1, tt.factor); !slices.Equal(got, tt.want[:]) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// TestLimitsHold checks the promises of Limits for many settings, with one to four tiers
// and each unit.
func TestLimitsHold(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	for range 200_000 {
		capacity := 1 + random.Int64N(1+random.Int64N(1_000_000))
		unit := []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour}[random.IntN(4)]
		most := 1_000_000 * unit.Minutes() // tokens in a unit
		count := 1 + random.Int64N(1+random.Int64N(int64(most)))
		factors := []float64{1}
		for range random.IntN(4) {
			factors = append(factors, min(1+random.Float64()*10, most/float64(count)))
		}
		limits := quota.Limits(capacity, count, unit, factors...)
		what := func() string { // only for a failure: it takes longer than the rest
			return fmt.Sprintf("Limits(%d, %d, %v, %v) = %+v", capacity, count, unit, factors, limits)
		}
		for i, l := range limits {
			asked, rate := float64(count)*max(1, factors[i]), float64(unit)/float64(l.Interval)
			if rate > asked*(1+1e-15) || rate < asked*0.999 {
				t.Fatalf("%s: a rate of %v, want at most %v and at least 99.9 %% of it", what(), rate, asked)
			}
			if i == 0 && l.Capacity != capacity || l.Capacity < capacity {
				t.Fatalf("%s: wrong capacity", what())
			}
			if limits[0].Span()+l.Interval <= l.Span() {
				t.Fatalf("%s: an empty bucket of the first tier would have a token of another", what())
			}
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

// TestScaledNeverOverflows: a bucket that fills in two years, at the smallest share.
func TestScaledNeverOverflows(t *testing.T) {
	for _, l := range []quota.Limit{{Capacity: 1, Interval: 24 * time.Hour}, {Capacity: 730, Interval: 24 * time.Hour}, {Capacity: 1_000_000, Interval: time.Minute}} {
		got := l.Scaled(1e-6)
		if got.Interval <= 0 || got.Span() < got.Interval || got.Span() <= 0 {
			t.Errorf("%+v: %+v, span %v", l, got, got.Span())
		}
	}
}

// TestLimitsAreExact: the interval is what was asked for, rounded up to a nanosecond, also where that is no double.
func TestLimitsAreExact(t *testing.T) {
	for want, got := range map[time.Duration]quota.Limit{
		24 * time.Hour: quota.Limits(1, 1, 24*time.Hour, 1)[0], 12342857142858: quota.Limits(1, 7, 24*time.Hour, 1)[0],
		8640 * time.Second: quota.Limits(10, 1, 24*time.Hour, 1, 10)[1], 3333333334: quota.Limits(10, 6, time.Minute, 1, 3)[1],
	} {
		if got.Interval != want {
			t.Errorf("%v, want %v", got.Interval, want)
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
	for share, ok := range map[float64]bool{1: true, 0.5: true, 1e-6: true, 0: false, -1: false, 1.1: false, math.NaN(): false, 1e-7: false} {
		if errs := (quota.Config{FallbackShare: share}).Validate(); (len(errs) == 0) != ok {
			t.Errorf("%v: %v", share, errs)
		}
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
