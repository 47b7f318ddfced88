package chaos

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
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
	tb.Helper()
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

// ScriptTime is what an admission with a fair share costs Redis, compared with one without, where so many callers have a
// job each.
type ScriptTime struct {
	Places []int
	Ratio  [][3]float64 // of the time: quartiles of the pairs of runs
	More   []float64    // commands that the script calls
	Time   [][2]float64 // in µs, without and with a share: medians
}

// PlayScriptTime measures so many pairs.
func PlayScriptTime(tb testing.TB, pairs int) (out ScriptTime) {
	tb.Helper()
	rdb := redistest.Start(tb).Client(tb)
	for _, limit := range []int{maxPending, 10_000} {
		// A share so large that nobody is refused.
		without, with := newScripts(tb, rdb, fmt.Sprint("without", limit), limit, 0), newScripts(tb, rdb, fmt.Sprint("with", limit), limit, 1e6)
		var ratios, a, b, more []float64
		for range pairs {
			x, y := without.measure(tb, 200), with.measure(tb, 200)
			ratios, a, b, more = append(ratios, y.time/x.time), append(a, x.time), append(b, y.time), append(more, y.commands-x.commands)
		}
		for _, list := range [][]float64{ratios, a, b, more} {
			slices.Sort(list)
		}
		out.Places = append(out.Places, limit)
		out.Ratio = append(out.Ratio, [3]float64{ratios[pairs/4], ratios[pairs/2], ratios[pairs*3/4]})
		out.More = append(out.More, more[pairs/2])
		out.Time = append(out.Time, [2]float64{a[pairs/2], b[pairs/2]})
	}
	return out
}

func (f ScriptTime) seen() string {
	var parts []string
	for i, places := range f.Places {
		parts = append(parts, fmt.Sprintf("with %d places and callers %.2f times as long (quartiles %.2f and %.2f; %.0f µs and %.0f µs), %.1f commands more",
			places, f.Ratio[i][1], f.Ratio[i][0], f.Ratio[i][2], f.Time[i][1], f.Time[i][0], f.More[i]))
	}
	return strings.Join(parts, "; ")
}

func (f ScriptTime) wrong() (wrong []string) {
	for i, more := range f.More {
		if more > 4 {
			wrong = append(wrong, fmt.Sprintf("%d places: %.2f commands more, want 4 at most", f.Places[i], more))
		}
	}
	return wrong
}

// late lists the targets that were missed. The lower quartile counts: what else the machine does disturbs some pairs.
func (f ScriptTime) late() (missed []string) {
	for i, r := range f.Ratio {
		if r[0] > 1.3 {
			missed = append(missed, fmt.Sprintf("%d places: %.2f times as long, the target is 1.3", f.Places[i], r[0]))
		}
	}
	return missed
}
