package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/backpressure/saq"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/jobmetrics"
	"github.com/refrakt-hub/refrakt-gate/jobmetrics/job"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// rights are the rules of the ACL SETUSER line that begins with prefix.
func rights(t *testing.T, prefix string) []string {
	t.Helper()
	text, err := os.ReadFile(configurationDoc)
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^` + prefix + `.*$`).FindString(string(text))
	if line == "" {
		t.Fatalf("%s has no line that begins with %q", configurationDoc, prefix)
	}
	return strings.Fields(line)
}

// smallest fails for each of the rights without which try finds nothing wrong, and if
// try does with all of them.
func smallest(t *testing.T, servers []*redistest.Server, rights []string, try func() error) {
	t.Helper()
	grant := func(without string) {
		var args []any
		for i, word := range rights {
			if i == 3 {
				args = append(args, "reset")
			}
			if word != without {
				args = append(args, word)
			}
		}
		for _, s := range servers {
			must(t, s.Client(t).Do(t.Context(), args...).Err())
		}
	}
	grant("")
	if err := try(); err != nil {
		t.Fatalf("with all of the rights: %v", err)
	}
	for _, word := range rights {
		if strings.ContainsAny(word[:1], "+~&") {
			grant(word)
			if try() == nil {
				t.Errorf("without %s everything works: it is not needed", word)
			}
		}
	}
}

// TestRedisRightsAreSmallest: with the documented rights all that a gate asks of Redis
// works, and without any one of them something does not. That a whole gate works with
// them is tested end to end.
func TestRedisRightsAreSmallest(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	smallest(t, []*redistest.Server{server}, rights(t, "ACL SETUSER refrakt-gate "), func() error {
		u, err := parseRedis("unix://refrakt-gate:PASSWORD@" + server.Socket + "?db=0")
		must(t, err)
		return useQueue(t, server, u.client())
	})
}

func TestRedisRightsOfBuckets(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	line := rights(t, " *ACL SETUSER refrakt-gate-buckets ")
	smallest(t, []*redistest.Server{server}, line, func() error {
		must(t, server.Client(t).FlushAll(t.Context()).Err())
		must(t, server.Client(t).ScriptFlush(t.Context()).Err())
		u, err := parseRedis("unix://refrakt-gate-buckets:PASSWORD@" + server.Socket)
		must(t, err)
		rdb := u.client()
		defer rdb.Close()
		return errors.Join(rdb.Ping(t.Context()).Err(), useBuckets(t.Context(), quota.NewRedis(rdb, "")), denied(t, server))
	})

	cluster := redistest.StartCluster(t, 3, false)
	smallest(t, cluster.Primaries, append(line, "+cluster|slots", "+command"), func() error {
		for _, p := range cluster.Primaries {
			must(t, p.Client(t).FlushAll(t.Context()).Err())
			must(t, p.Client(t).ScriptFlush(t.Context()).Err())
		}
		u, err := parseRedis("redis://refrakt-gate-buckets:PASSWORD@" + strings.TrimPrefix(cluster.URL(), "redis://"))
		must(t, err)
		rdb := redis.NewClusterClient(u.cluster)
		defer rdb.Close()
		errs := []error{rdb.Ping(t.Context()).Err(), useBuckets(t.Context(), quota.NewCluster(rdb, slog.New(slog.DiscardHandler)))}
		for _, p := range cluster.Primaries {
			errs = append(errs, denied(t, p))
		}
		return errors.Join(errs...)
	})
}

func TestRedisRightsOfSentinel(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	smallest(t, s.Sentinels, rights(t, " *ACL SETUSER refrakt-gate-sentinel "), func() error {
		u, err := parseRedis("redis://refrakt-gate-sentinel:PASSWORD@" + strings.TrimPrefix(s.URL(), "redis://"))
		must(t, err)
		rdb := u.client()
		defer rdb.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		errs := []error{rdb.Ping(ctx).Err()}
		for _, sentinel := range s.Sentinels {
			errs = append(errs, denied(t, sentinel))
		}
		return errors.Join(errs...)
	})
}

// denied returns an error if Redis has denied something since the last call.
func denied(t *testing.T, server *redistest.Server) error {
	t.Helper()
	log, err := server.Client(t).Do(t.Context(), "ACL", "LOG").Slice()
	must(t, err)
	must(t, server.Client(t).Do(t.Context(), "ACL", "LOG", "RESET").Err())
	if len(log) > 0 {
		return fmt.Errorf("Redis has denied %v", log[0])
	}
	return nil
}

func useBuckets(ctx context.Context, buckets quota.Store) error {
	var errs []error
	limit := quota.Limit{Capacity: 2, Interval: time.Second}
	req := quota.Request{Buckets: []quota.Bucket{{Key: quota.Key("run", "ip:1"), Limit: limit}, {Key: quota.Key("run", "user:1"), Limit: limit}}}
	for range 3 {
		r, err := buckets.Take(ctx, req)
		errs = append(errs, err, buckets.Refund(ctx, r, req.Buckets))
	}
	return errors.Join(errs...)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// useQueue has every part of a gate ask Redis all that it ever asks, and returns what
// Redis refused. It closes rdb.
func useQueue(t *testing.T, server *redistest.Server, rdb *redis.Client) error {
	t.Helper()
	defer rdb.Close()
	admin := server.Client(t)
	must(t, admin.FlushAll(t.Context()).Err())
	must(t, admin.ScriptFlush(t.Context()).Err())
	ids := []string{"saq:job:default:1", "saq:job:default:2"}
	for _, id := range ids {
		text := `{"function": "f", "kwargs": {"x": "` + strings.Repeat("x", 2000) + `"}, "queue": "default", "key": "1", "queued": 1700000000000, "status": "queued"}`
		must(t, admin.Set(t.Context(), id, text, 0).Err())
		must(t, admin.RPush(t.Context(), "saq:default:queued", id).Err())
		must(t, admin.ZAdd(t.Context(), "saq:default:incomplete", redis.Z{Member: id}).Err())
	}
	// A job that is gone, and may be forgotten.
	must(t, admin.HSet(t.Context(), "refrakt:gate:jobs:default", "saq:job:default:0", `{"q":1,"a":1,"s":"complete","g":1}`).Err())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	errs := []error{rdb.Ping(ctx).Err(), useBuckets(ctx, quota.NewRedis(rdb, ""))}
	note := func(err error) { errs = append(errs, err) }

	queue := saq.New("default", rdb)
	s, err := queue.Sample(ctx, nil, true)
	note(err)
	_, err = queue.Sample(ctx, s.Cursor, false)
	note(err)
	for _, move := range []string{"RPUSH", "LPOP", ""} { // a job arrives, and the mark is gone
		_, err = queue.Admit(ctx, backpressure.Place{Limit: 40}, time.Minute)
		note(err)
		switch move {
		case "RPUSH":
			must(t, admin.RPush(t.Context(), "saq:default:queued", ids[0]).Err())
		case "LPOP":
			must(t, admin.LTrim(t.Context(), "saq:default:queued", 0, 0).Err())
		}
	}
	note(useShares(ctx, t, admin, queue))
	listening, stop := context.WithCancel(ctx)
	defer stop()
	if err := queue.Subscribe(listening, stop, func(job.Event) {}); listening.Err() == nil {
		note(err)
	}

	counter := jobmetrics.New(jobmetrics.Config{}, "default", queue, rdb, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	running, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- counter.Run(running) }()
	deadline := time.Now().Add(2 * time.Second)
	counted := func() bool {
		entries := admin.HKeys(t.Context(), "refrakt:gate:jobs:default").Val()
		return len(entries) == 2 && !slices.Contains(entries, "saq:job:default:0")
	}
	for !counted() && time.Now().Before(deadline) && !hasDenied(t, admin) {
		<-time.After(5 * time.Millisecond)
	}
	if !counted() {
		note(errors.New("the jobs were not counted"))
	}
	stop()
	note(<-done)
	return errors.Join(append(errs, denied(t, server))...)
}

// useShares has the counts of a fair share written, cut and counted anew.
func useShares(ctx context.Context, t *testing.T, admin *redis.Client, queue *saq.Queue) error {
	t.Helper()
	var errs []error
	ask := func(share float64, caller string) {
		_, err := queue.Admit(ctx, backpressure.Place{Limit: 60, Share: share, Caller: caller}, time.Minute)
		errs = append(errs, err)
	}
	must(t, admin.Del(t.Context(), "refrakt:gate:admissions:default").Err())
	for range 12 {
		must(t, admin.RPush(t.Context(), "saq:default:queued", "saq:job:default:gone").Err())
	}
	ask(1, "bob")
	for range 20 {
		ask(1, "ann")
	}
	must(t, admin.Del(t.Context(), "refrakt:gate:admissions:default").Err()) // none of them became a job
	ask(1, "ann")
	ask(0.1, "ann")
	must(t, admin.Del(t.Context(), "saq:default:queued", "refrakt:gate:admissions:default").Err())
	ask(0.1, "ann")
	return errors.Join(errs...)
}

func hasDenied(t *testing.T, admin *redis.Client) bool {
	t.Helper()
	log, err := admin.Do(t.Context(), "ACL", "LOG").Slice()
	must(t, err)
	return len(log) > 0
}
