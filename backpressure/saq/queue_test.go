package saq

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/internal/saqtest"
)

// TestSAQ lets SAQ itself make the states the gate has to understand.
func TestSAQ(t *testing.T) {
	t.Parallel()
	for _, scenario := range []string{
		"fresh", "updated", "scheduled_later", "scheduled_due",
		"retried", "retried_with_delay", "waiting_for_retry",
		"retried_with_backoff", "retried_with_bounded_backoff", "swept",
		"taken", "workers",
	} {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel() // most of them wait
			server := redistest.Start(t)
			rdb := server.Client(t)
			var want struct {
				Pending, Running, Workers int64
				Since                     int64 // epoch ms
			}
			runSAQ(t, server, "training", scenario, &want)

			before := redisMillis(t, rdb)
			got, err := New("training", rdb).Sample(t.Context(), nil, false)
			if err != nil {
				t.Fatal(err)
			}
			after := redisMillis(t, rdb)
			if got.Pending != want.Pending || got.Running != want.Running || got.Workers != want.Workers {
				t.Errorf("pending %d, running %d, workers %d, want %+v", got.Pending, got.Running, got.Workers, want)
			}
			low, high := before-want.Since, after-want.Since
			if want.Pending == 0 {
				low, high = 0, 0
			}
			if age := got.OldestAge.Milliseconds(); !got.AgeKnown || age < low || age > high {
				t.Errorf("age %d ms (known: %v), want %d to %d ms", age, got.AgeKnown, low, high)
			}
		})
	}
}

func TestSAQKeys(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var saq struct{ Queued, Active, Stats, Element, Payload string }
	runSAQ(t, server, "training", "keys", &saq)
	for got, want := range map[string]string{
		New("training", nil).queuedKey(): saq.Queued,
		New("training", nil).activeKey(): saq.Active,
		New("training", nil).statsKey():  saq.Stats,
		saq.Element:                      saq.Payload, // an element is the payload's key
	} {
		if got != want {
			t.Errorf("key %q, SAQ has %q", got, want)
		}
	}
}

func TestSampleHeads(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	old := time.Now().Add(-time.Minute).UnixMilli()
	cases := map[string]struct {
		gone  int             // heads without a payload
		set   func(id string) // the first head that is there
		known bool
	}{
		"payload at the head":     {0, func(id string) { rdb.Set(t.Context(), id, jobQueued(old), 0) }, true},
		"one payload gone":        {1, func(id string) { rdb.Set(t.Context(), id, jobQueued(old), 0) }, true},
		"last of the heads":       {oldestTried - 1, func(id string) { rdb.Set(t.Context(), id, jobQueued(old), 0) }, true},
		"all heads gone":          {oldestTried, func(id string) { rdb.Set(t.Context(), id, jobQueued(old), 0) }, false},
		"payload not JSON":        {0, func(id string) { rdb.Set(t.Context(), id, "\x80\x04\x95pickle", 0) }, false},
		"payload of another type": {0, func(id string) { rdb.RPush(t.Context(), id, "x") }, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			queue := strings.ReplaceAll(name, " ", "-")
			for i := range tc.gone {
				rdb.RPush(t.Context(), New(queue, nil).queuedKey(), fmt.Sprintf("saq:job:%s:gone%d", queue, i))
			}
			id := "saq:job:" + queue + ":there"
			rdb.RPush(t.Context(), New(queue, nil).queuedKey(), id)
			tc.set(id)
			got, err := New(queue, rdb).Sample(t.Context(), nil, false)
			if err != nil {
				t.Fatal(err)
			}
			if got.Pending != int64(tc.gone)+1 || got.AgeKnown != tc.known {
				t.Errorf("pending %d, age known %v, want %d, %v", got.Pending, got.AgeKnown, tc.gone+1, tc.known)
			}
			if tc.known && (got.OldestAge < time.Minute || got.OldestAge > 2*time.Minute) {
				t.Errorf("age %s, want a minute", got.OldestAge)
			}
		})
	}
}

func TestSampleKeyOfAnotherType(t *testing.T) {
	t.Parallel()
	for _, key := range []string{New("q", nil).queuedKey(), New("q", nil).activeKey(), New("q", nil).statsKey()} {
		t.Run(key, func(t *testing.T) {
			rdb := redistest.Start(t).Client(t)
			rdb.Set(t.Context(), key, "x", 0)
			if _, err := New("q", rdb).Sample(t.Context(), nil, false); err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
				t.Errorf("error %v, want WRONGTYPE", err)
			}
		})
	}
}

// TestSampleCost: one round trip, and no more of an answer or of Redis's time
// for 100,000 jobs than for a few.
func TestSampleCost(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	fill(t, rdb, "short", 20)
	fill(t, rdb, "long", 100_000)
	var trips roundTrips
	rdb.AddHook(&trips)
	// Connecting takes trips of its own, and the client keeps connections for
	// pipelines apart.
	if _, err := New("short", rdb).Sample(t.Context(), nil, false); err != nil {
		t.Fatal(err)
	}

	payloads := map[string]int{}
	for _, queue := range []string{"short", "long"} {
		trips = roundTrips{}
		if _, err := New(queue, rdb).Sample(t.Context(), nil, false); err != nil {
			t.Fatal(err)
		}
		if p, s := trips.pipelines.Load(), trips.single.Load(); p != 1 || s != 0 {
			t.Errorf("%s queue: %d pipelines and %d single commands, want 1 and 0", queue, p, s)
		}
		payloads[queue] = int(trips.payloads.Load())
	}
	if payloads["short"] != 1+fieldCount || payloads["long"] != 1+fieldCount {
		t.Errorf("values answered %v, want the fields of one job", payloads)
	}
}

// TestSampleOutOfMemory reads where nothing can be written.
func TestSampleOutOfMemory(t *testing.T) {
	rdb := redistest.Start(t, "--maxmemory-policy", "noeviction").Client(t)
	fill(t, rdb, "q", 3)
	if err := rdb.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if err := rdb.Set(t.Context(), "x", "y", 0).Err(); err == nil {
		t.Fatal("Redis still takes writes: the test tests nothing")
	}
	if r, err := New("q", rdb).Sample(t.Context(), nil, false); err != nil || r.Pending != 3 || !r.AgeKnown {
		t.Errorf("got %+v, %v; want 3 jobs of a known age", r, err)
	}
}

// TestSampleEmptied has a worker take the last job between the reads of one
// sample: nothing waits then, which is not an unknown age.
func TestSampleEmptied(t *testing.T) {
	rdb := redistest.Start(t).Client(t)
	fill(t, rdb, "q", 1)
	r, err := New("q", taker{rdb}).Sample(t.Context(), nil, false)
	if err != nil || r.Pending != 0 || !r.AgeKnown || r.OldestAge != 0 {
		t.Errorf("got %+v, %v; want an empty queue", r, err)
	}
}

// taker takes the job after the lengths were read.
type taker struct{ *redis.Client }

func (c taker) Pipelined(ctx context.Context, fn func(redis.Pipeliner) error) ([]redis.Cmder, error) {
	return c.Client.Pipelined(ctx, func(p redis.Pipeliner) error { return fn(takingPipe{p}) })
}

type takingPipe struct{ redis.Pipeliner }

func (p takingPipe) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	if script == payloadLua+oldestLua {
		p.LPop(ctx, keys[0])
	}
	return p.Pipeliner.Eval(ctx, script, keys, args...)
}

// TestSampleWithFewRights reads as a Redis user that may touch SAQ's keys only
// and run none of the commands that hosts take away.
func TestSampleWithFewRights(t *testing.T) {
	server := redistest.Start(t)
	admin := server.Client(t)
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "gate", "on", ">pw", "~saq:*", "~refrakt:*", "+@all", "-@dangerous", "-@admin").Err(); err != nil {
		t.Fatal(err)
	}
	fill(t, admin, "q", 3)
	rdb := redis.NewClient(&redis.Options{Network: "unix", Addr: server.Socket, Username: "gate", Password: "pw"})
	defer rdb.Close()
	r, err := New("q", rdb).Sample(t.Context(), nil, false)
	if err != nil || r.Pending != 3 || !r.AgeKnown {
		t.Errorf("got %+v, %v; want 3 jobs of a known age", r, err)
	}
}

func jobQueued(millis int64) string {
	return fmt.Sprintf(`{"function":"run","queued":%d,"status":"queued"}`, millis)
}

// fill puts n jobs with payloads into a queue.
func fill(t *testing.T, rdb *redis.Client, queue string, n int) {
	t.Helper()
	err := rdb.Eval(t.Context(), `for i = 1, tonumber(ARGV[1]) do
		redis.call('RPUSH', KEYS[1], ARGV[3] .. i)
		redis.call('SET', ARGV[3] .. i, ARGV[2])
		redis.call('ZADD', KEYS[2], 0, ARGV[3] .. i)
	end return 1`, []string{New(queue, nil).queuedKey(), New(queue, nil).incompleteKey()}, n, jobQueued(time.Now().UnixMilli()), "saq:job:"+queue+":").Err()
	if err != nil {
		t.Fatalf("fill queue: %v", err)
	}
}

func redisMillis(t *testing.T, rdb *redis.Client) int64 {
	t.Helper()
	now, err := rdb.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return now.UnixMilli()
}

// roundTrips counts what a client sends.
type roundTrips struct{ pipelines, single, payloads atomic.Int64 }

func (*roundTrips) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (r *roundTrips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		r.single.Add(1)
		return next(ctx, cmd)
	}
}

func (r *roundTrips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		r.pipelines.Add(1)
		err := next(ctx, cmds)
		for _, cmd := range cmds {
			if heads, ok := cmd.(*redis.Cmd); ok && cmd.Args()[1] == payloadLua+oldestLua {
				payloads, _ := heads.Slice()
				r.payloads.Add(int64(len(payloads)))
			}
		}
		return err
	}
}

// runSAQ plays a scenario on real SAQ and decodes what it prints.
func runSAQ(t *testing.T, server *redistest.Server, queue, scenario string, out any) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), saqtest.Python(t), "testdata/saq_scenarios.py", server.URL(), queue, scenario)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("run SAQ scenario %s: %v\n%s", scenario, err, &stderr)
	}
	if err := json.Unmarshal(text, out); err != nil {
		t.Fatalf("read SAQ scenario %s: %v", scenario, err)
	}
}

// python is the interpreter that has SAQ: REFRAKT_PYTHON, or the module's own.
