package quota

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
)

func clusterClient(t *testing.T, c *redistest.Cluster) *redis.ClusterClient {
	t.Helper()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs, MaxRedirects: -1, MaxRetries: -1, ContextTimeoutEnabled: true, DialerRetries: 1})
	t.Cleanup(func() { client.Close() })
	return client
}

// on returns a key of this kind that primary i of c has.
func on(t *testing.T, c *redistest.Cluster, i int, kind string) string {
	t.Helper()
	client := c.Primaries[i].Client(t)
	for n := range 1000 {
		key := Key("run", fmt.Sprintf("%s:%d", kind, n))
		if err := client.Get(t.Context(), key).Err(); err == nil || errors.Is(err, redis.Nil) {
			return key
		}
	}
	t.Fatalf("no key of 1000 is on primary %d", i)
	return ""
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestClusterPrimaryLost: one of three primaries dies. For callers with a bucket there
// local buckets decide, for all others the cluster. Then the primary comes back, or its
// replica takes over.
func TestClusterPrimaryLost(t *testing.T) {
	for name, replicas := range map[string]bool{"it comes back": false, "its replica takes over": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // both wait for their clusters
			cluster := redistest.StartCluster(t, 3, replicas)
			log := new(strings.Builder)
			reg := prometheus.NewRegistry()
			logger := slog.New(slog.NewTextHandler(log, nil))
			f := NewFailover(NewCluster(clusterClient(t, cluster), logger), NewMemory(), 1, reg, logger)
			limit := Limit{Capacity: 1000, Interval: time.Hour}
			ip, user := on(t, cluster, 0, "ip"), on(t, cluster, 1, "user")
			take := func(keys ...string) Result {
				t.Helper()
				r, err := f.Take(within(t, 2*time.Second), of(limit, keys...))
				if err != nil || !r.Taken {
					t.Fatalf("take of %v: %+v, %v", keys, r, err)
				}
				return r
			}
			take(ip, user)
			probing, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- f.Run(probing) }()
			defer func() { stop(); <-done }()
			until := func(what string, cond func() bool) {
				t.Helper()
				ctx := within(t, 20*time.Second)
				for !cond() {
					select {
					case <-ctx.Done():
						t.Fatalf("not within 20 s: %s\n%s", what, log)
					case <-time.After(10 * time.Millisecond):
					}
				}
			}

			cluster.Primaries[1].Kill()
			until("the loss is noticed", f.Degraded)
			if v := metrictest.Value(t, reg, "refrakt_gate_fallback_active"); v != 1 {
				t.Errorf("refrakt_gate_fallback_active is %v, want 1", v)
			}
			if !replicas {
				before := take(ip)
				if before.Fallback {
					t.Error("a bucket on a primary that lives is not asked")
				}
				if r := take(ip, user); !r.Fallback {
					t.Error("a caller with a bucket on the lost primary was not decided locally")
				}
				if after := take(ip); after.Remaining() != before.Remaining()-1 {
					t.Errorf("a caller decided locally was charged in the cluster: %d left, %d before", after.Remaining(), before.Remaining())
				}
				cluster.Primaries[1].Restart()
			}
			until("all is asked again", func() bool { return !f.Degraded() })
			if r := take(ip, user); r.Fallback {
				t.Error("not decided by the cluster that is whole again")
			}
		})
	}
}

// TestClusterRefunds: the first bucket is not charged if the second is empty, or if its
// server is away.
func TestClusterRefunds(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, false)
	store := NewCluster(clusterClient(t, cluster), slog.New(slog.DiscardHandler))
	limit := Limit{Capacity: 5, Interval: time.Hour}
	ip, user := on(t, cluster, 0, "ip"), on(t, cluster, 1, "user")
	for range limit.Capacity {
		if r, err := store.Take(within(t, 5*time.Second), of(limit, user)); err != nil || !r.Taken {
			t.Fatalf("take: %+v, %v", r, err)
		}
	}
	for range 3 * limit.Capacity {
		if r, err := store.Take(within(t, 5*time.Second), of(limit, ip, user)); err != nil || r.Taken {
			t.Fatalf("take with one bucket empty: %+v, %v", r, err)
		}
	}
	cluster.Primaries[1].Kill()
	for range tripAfter + 2 {
		if r, err := store.Take(within(t, 5*time.Second), of(limit, ip, user)); err == nil {
			t.Fatalf("take with a server away: %+v", r)
		}
	}
	if r, err := store.Take(within(t, 5*time.Second), of(limit, ip)); err != nil || !r.Taken || r.Remaining() != limit.Capacity-1 {
		t.Errorf("the other bucket: %+v, %v; want it full before", r, err)
	}
}

// TestClusterBucketMoves moves a bucket's slot to another primary.
func TestClusterBucketMoves(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, false)
	f := NewFailover(NewCluster(clusterClient(t, cluster), slog.New(slog.DiscardHandler)), NewMemory(), 1, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	limit := Limit{Capacity: 1000, Interval: time.Hour}
	key := on(t, cluster, 0, "ip")
	ctx := within(t, 30*time.Second)
	if r, err := f.Take(ctx, of(limit, key)); err != nil || r.Fallback {
		t.Fatalf("take: %+v, %v", r, err)
	}
	slot := cluster.Primaries[0].Client(t).ClusterKeySlot(ctx, key).Val()
	ids := make([]string, 2)
	for i := range ids {
		ids[i] = cluster.Primaries[i].Client(t).Do(ctx, "CLUSTER", "MYID").Val().(string)
	}
	cluster.Primaries[0].Client(t).Del(ctx, key) // what a migration would carry over
	for _, i := range []int{1, 0, 2} {
		if err := cluster.Primaries[i].Client(t).Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", ids[1]).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for {
		r, err := f.Take(ctx, of(limit, key))
		if err != nil {
			t.Fatalf("take: %v", err)
		}
		if f.Degraded() {
			t.Fatal("a bucket that moved opened a breaker")
		}
		if !r.Fallback {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the bucket is not found again")
		}
	}
}

// TestClusterSlotsWithoutServer: one of three primaries dies and the others forget it, so
// that no server has its slots. Requests for these slots don't harm other callers.
func TestClusterSlotsWithoutServer(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, false)
	f := NewFailover(NewCluster(clusterClient(t, cluster), slog.New(slog.DiscardHandler)), NewMemory(), 1, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	limit := Limit{Capacity: 1000, Interval: time.Hour}
	here, nowhere := on(t, cluster, 0, "ip"), on(t, cluster, 1, "user")
	ctx := within(t, 30*time.Second)
	lost, err := cluster.Primaries[1].Client(t).Do(ctx, "CLUSTER", "MYID").Text()
	if err != nil {
		t.Fatal(err)
	}
	cluster.Primaries[1].Kill()
	for _, i := range []int{0, 2} {
		if err := cluster.Primaries[i].Client(t).Do(ctx, "CLUSTER", "FORGET", lost).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 * tripAfter {
		if r, err := f.Take(ctx, of(limit, nowhere)); err != nil || !r.Fallback {
			t.Fatalf("take of a bucket that no server has: %+v, %v", r, err)
		}
	}
	if r, err := f.Take(ctx, of(limit, here)); err != nil || r.Fallback {
		t.Errorf("take of a bucket whose server is there: %+v, %v", r, err)
	}
}

// clients is a topology of one server, with a client that may be replaced.
type clients struct{ now *redis.Client }

func (c *clients) MasterForKey(context.Context, string) (*redis.Client, error) { return c.now, nil }
func (c *clients) ReloadState(context.Context)                                 {}

// TestClusterNewClient: the topology closes the client of a server that was away for
// long, and makes another one of the same address.
func TestClusterNewClient(t *testing.T) {
	_, addr := redistest.StartTCP(t)
	topology := &clients{redis.NewClient(&redis.Options{Addr: addr})}
	store := NewCluster(topology, slog.New(slog.DiscardHandler))
	for range 2 {
		if r, err := store.Take(within(t, 5*time.Second), of(oneToken, "a")); err != nil {
			t.Fatalf("take: %+v, %v", r, err)
		}
		topology.now.Close()
		topology.now = redis.NewClient(&redis.Options{Addr: addr})
	}
	topology.now.Close()
}

// TestBlameless: which errors of a server of a cluster don't count against it.
func TestBlameless(t *testing.T) {
	rdb := redistest.Start(t).Client(t)
	for text, want := range map[string]bool{
		"MOVED 1 127.0.0.1:1": true, "ASK 1 127.0.0.1:1": true, "CLUSTERDOWN Hash slot not served": true,
		"CLUSTERDOWN The cluster is down": false, "LOADING Redis is loading the dataset in memory": false, "ERR unknown": false,
	} {
		err := rdb.Eval(t.Context(), "return redis.error_reply(ARGV[1])", nil, text).Err()
		if err == nil {
			t.Fatalf("%s: no error", text)
		}
		if got := blameless(fmt.Errorf("take tokens: %w", err)); got != want {
			t.Errorf("%q: %v, want %v", err, got, want)
		}
	}
	if blameless(context.DeadlineExceeded) {
		t.Error("a server that does not answer in time does not count")
	}
}
