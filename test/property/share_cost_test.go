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

// cost is what one admission costs Redis: its time in µs, and how many commands the script calls.
type cost struct{ time, commands float64 }

// measure returns the cost of each of n admissions, while a job arrives and a job leaves with each.
func (s *scripts) measure(tb testing.TB, n int) cost {
	tb.Helper()
	s.rdb.ConfigResetStat(context.Background())
	for range n {
		s.admit(tb)
		s.arrive(tb)
		s.leave(tb)
	}
	var c cost
	for _, m := range regexp.MustCompile(`cmdstat_(\w+):calls=(\d+),usec=(\d+)`).FindAllStringSubmatch(s.rdb.Info(context.Background(), "commandstats").Val(), -1) {
		calls, _ := strconv.ParseFloat(m[2], 64)
		if m[1] == "evalsha" {
			c.time, _ = strconv.ParseFloat(m[3], 64)
			c.time /= calls
		} else {
			c.commands += calls / float64(n)
		}
	}
	return c
}

// TestShareCost: an admission with a fair share costs at most 1.3 times one without, whether 40 or 10,000 callers have a
// job each. The commands are counted exactly. Of the time, the lower quartile of the pairs counts: what else the machine
// does disturbs single ones.
func TestShareCost(t *testing.T) {
	rdb := redistest.Start(t).Client(t)
	for _, limit := range []int{40, 10_000} {
		without, with := newScripts(t, rdb, fmt.Sprint("without", limit), limit, 0), newScripts(t, rdb, fmt.Sprint("with", limit), limit, 1e6)
		var ratios []float64
		var a, b cost
		for range 25 {
			a, b = without.measure(t, 200), with.measure(t, 200)
			ratios = append(ratios, b.time/a.time)
		}
		slices.Sort(ratios)
		t.Logf("%d places: time × %.2f (lower quartile), %.2f (median), %.2f (upper quartile); %.1f µs and %.1f µs in the last pair; %.2f commands more",
			limit, ratios[6], ratios[12], ratios[18], a.time, b.time, b.commands-a.commands)
		if ratios[6] > 1.3 {
			t.Errorf("%d places: with fair shares Redis takes %.2f times as long, want at most 1.3", limit, ratios[6])
		}
		if more := b.commands - a.commands; more > 4 {
			t.Errorf("%d places: %.2f commands more, want 4 at most", limit, more)
		}
	}
}
