package jobmetrics

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/backpressure/saq"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
)

// TestNoCallIsLong: with 100,000 jobs that wait, as many entries in the ledger and as
// many other keys, no command of a gate takes Redis much longer than 3000 STRLEN, which
// is a millisecond. Means are compared, since the machine is shared.
func TestNoCallIsLong(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	const jobs = 100_000
	for first := 1; first < jobs; first += 5000 {
		must(t, rdb.Eval(t.Context(), `
		local more = string.rep('x', 500)
		for i = tonumber(ARGV[1]), ARGV[1] + 4999 do
			local id = 'saq:job:training:' .. i
			redis.call('SET', id, '{"function": "f", "kwargs": {"x": "' .. more .. '"}, "queue": "training", "key": "' .. i .. '", "queued": 1700000000000, "status": "queued"}')
			redis.call('RPUSH', 'saq:training:queued', id)
			redis.call('ZADD', 'saq:training:incomplete', 0, id)
			redis.call('HSET', 'refrakt:gate:jobs:training', id, '{"q":1700000000000,"a":0,"s":"queued","r":1700000000000}')
			redis.call('SET', 'other:' .. i, 1)
		end
		return 1`, nil, first).Err())
	}
	c := unstarted(rdb)
	queue := saq.New(jobsQueue, rdb)
	must(t, rdb.ConfigResetStat(t.Context()).Err())
	for range 100 {
		must(t, rdb.Eval(t.Context(), "for i = 1, 1000 do redis.call('STRLEN', KEYS[1]) end return 1", []string{"saq:job:training:1"}).Err())
	}
	strlen := perCall(t, rdb)["eval"] / 1000
	must(t, rdb.ConfigResetStat(t.Context()).Err())
	var cursor any
	for range 30 {
		must(t, c.step(t.Context()))
		s, err := queue.Sample(t.Context(), cursor, false)
		must(t, err)
		cursor = s.Cursor
	}
	seen := perCall(t, rdb)
	for _, command := range []string{"scan", "zscan", "hscan", "hmget", "evalsha", "eval", "lpos", "llen"} {
		if seen[command] == 0 {
			t.Errorf("%s was not called: it was not put to the test", command)
		}
	}
	must(t, rdb.ConfigResetStat(t.Context()).Err())
	for range 20 {
		_, err := queue.Admit(t.Context(), backpressure.Place{Limit: 2 * jobs}, time.Minute)
		must(t, err)
		// The job that was last is searched for in vain.
		must(t, rdb.HSet(t.Context(), "refrakt:gate:admissions:training", "tail", "saq:job:training:gone!").Err())
	}
	seen["admission"] = perCall(t, rdb)["evalsha"]
	for command, took := range seen {
		t.Logf("%-16s %v", command, took)
		if took > 3000*strlen {
			t.Errorf("%s takes %v, want less than 3000 times the %v of a STRLEN", command, took, strlen)
		}
	}
}

// perCall is the mean time that each command took since the statistics began.
func perCall(t *testing.T, rdb *redis.Client) map[string]time.Duration {
	t.Helper()
	info, err := rdb.Info(t.Context(), "commandstats").Result()
	must(t, err)
	means := map[string]time.Duration{}
	for line := range strings.Lines(info) {
		name, rest, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "cmdstat_"), ":")
		var calls, usec int64
		if n, _ := fmt.Sscanf(rest, "calls=%d,usec=%d,", &calls, &usec); n == 2 && calls > 0 {
			means[name] = time.Duration(usec) * time.Microsecond / time.Duration(calls)
		}
	}
	return means
}
