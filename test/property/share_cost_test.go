package property_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/backpressure/saq"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// scripts has Redis's own time of the scripts that admit requests to a queue that stays about half full.
type scripts struct {
	rdb   *redis.Client
	store *quota.Redis
	queue quota.Queue
	name  string
	limit int
	share float64
	jobs  int
}

func newScripts(tb testing.TB, rdb *redis.Client, name string, limit int, share float64) *scripts {
	s := &scripts{rdb: rdb, store: quota.NewRedis(rdb, saq.PlacesLua), name: name, limit: limit, share: share}
	s.queue.Keys, s.queue.Args = saq.New(name, rdb).Places(500 * time.Millisecond)
	for range limit / 2 {
		s.admit(tb)
		s.arrive(tb)
	}
	return s
}

// admit admits one request of the next caller.
func (s *scripts) admit(tb testing.TB) {
	tb.Helper()
	caller := fmt.Sprint("ip:", s.jobs%s.limit)
	limit := quota.Limit{Capacity: 1e6, Interval: time.Millisecond}
	r, err := s.store.Take(context.Background(), quota.Request{
		Buckets: []quota.Bucket{{Key: "ip" + caller, Limit: limit}, {Key: "user" + caller, Limit: limit}},
		Place:   quota.Place{Mode: quota.PlaceRequired, Queue: &s.queue, Limit: s.limit, Share: s.share, Caller: caller},
	})
	if err != nil || r.Place != quota.PlaceGiven {
		tb.Fatalf("%+v, %v", r, err)
	}
}

// arrive has the job of the request arrive.
func (s *scripts) arrive(tb testing.TB) {
	tb.Helper()
	s.jobs++
	id := fmt.Sprintf("saq:job:%s:%d", s.name, s.jobs)
	payload := fmt.Sprintf(`{"function": "f", "kwargs": {"source": "api"}, "queue": "%s", "key": "%d", "queued": %d, "status": "queued"}`, s.name, s.jobs, time.Now().UnixMilli())
	_, err := s.rdb.Pipelined(context.Background(), func(p redis.Pipeliner) error {
		p.Set(context.Background(), id, payload, 0)
		p.RPush(context.Background(), "saq:"+s.name+":queued", id)
		p.ZAdd(context.Background(), "saq:"+s.name+":incomplete", redis.Z{Member: id})
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// leave has the oldest job end.
func (s *scripts) leave(tb testing.TB) {
	tb.Helper()
	id, err := s.rdb.LPop(context.Background(), "saq:"+s.name+":queued").Result()
	if err != nil {
		tb.Fatal(err)
	}
	s.rdb.ZRem(context.Background(), "saq:"+s.name+":incomplete", id)
	s.rdb.Del(context.Background(), id)
}

// time returns how long Redis takes for each of n admissions, in µs.
func (s *scripts) time(tb testing.TB, n int) float64 {
	tb.Helper()
	s.rdb.ConfigResetStat(context.Background())
	for range n {
		s.admit(tb)
		s.arrive(tb)
		s.leave(tb)
	}
	text := s.rdb.Info(context.Background(), "commandstats").Val()
	m := regexp.MustCompile(`cmdstat_evalsha:calls=(\d+),usec=(\d+)`).FindStringSubmatch(text)
	usec, _ := strconv.ParseFloat(m[2], 64)
	calls, _ := strconv.ParseFloat(m[1], 64)
	return usec / calls
}

func TestShareCost(t *testing.T) {
	rdb := redistest.Start(t).Client(t)
	for _, limit := range []int{40, 10_000} {
		without, with := newScripts(t, rdb, fmt.Sprint("without", limit), limit, 0), newScripts(t, rdb, fmt.Sprint("with", limit), limit, 1e6)
		var ratios, a, b []float64
		for range 41 {
			x, y := without.time(t, 300), with.time(t, 300)
			ratios, a, b = append(ratios, y/x), append(a, x), append(b, y)
		}
		slices.Sort(ratios)
		slices.Sort(a)
		slices.Sort(b)
		t.Logf("%d places: %.1f µs, with shares %.1f µs, ratio %.2f (quartiles %.2f to %.2f)", limit, a[20], b[20], ratios[20], ratios[10], ratios[30])
	}
}
