package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/policy"
)

// TestUnreservedPlaces: the threshold that `config` tells of is the one that the queue is judged by.
func TestUnreservedPlaces(t *testing.T) {
	m := backpressure.NewMonitor(backpressure.Config{}, backpressure.Limits{}, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		q := policy.Queue{MaxPending: 1 + random.IntN(1+random.IntN(1_000_000_000))}
		q.Reserve.Share = float64(1+random.IntN(999)) / 1000
		if q.Unreserved() < 1 || q.Unreserved() >= q.MaxPending {
			continue // a mistake in a file
		}
		v := m.View(limitsOf(q))
		if got := v.Place(backpressure.Asker{}).Limit; got != q.Unreserved() {
			t.Fatalf("%+v: %d places without the reserve, but config says %d", q, got, q.Unreserved())
		}
		if got := v.Place(backpressure.Asker{Reserved: true}).Limit; got != q.MaxPending {
			t.Fatalf("%+v: %d places with the reserve", q, got)
		}
	}
}

// TestQueuesComeAndGo: a new queue is known before a request can ask it, one that stays keeps its monitor, and one that is
// gone leaves no goroutine and no series.
func TestQueuesComeAndGo(t *testing.T) {
	server := redistest.Start(t)
	cfg, errs := loadConfig(map[string]string{"QUEUE_URL": server.URL(), "POLICY_FILE": policyFile(t, onePolicy)})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	u, err := parseRedis(cfg.QueueURL)
	must(t, err)
	rdb := u.client()
	defer rdb.Close()
	reg := prometheus.NewRegistry()
	q := &queues{cfg: cfg, rdb: rdb, reg: reg, log: slog.New(slog.DiscardHandler), together: true}
	_, drop := q.apply([]policy.Queue{{Name: "a", MaxPending: 10}})
	drop()
	running := 0
	ended := make(chan struct{}, 100)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	q.serve(ctx, ctx, func(f func() error) {
		running++
		go func() {
			defer func() { ended <- struct{}{} }()
			if err := f(); err != nil {
				t.Error(err)
			}
		}()
	})
	first := q.watched["a"].monitor

	in, drop := q.apply([]policy.Queue{{Name: "a", MaxPending: 20}, {Name: "b", MaxPending: 5}})
	drop()
	if got := in["b"].Shed(backpressure.Asker{}, true); got.State != backpressure.StateOK {
		t.Errorf("a new queue is %s when it comes, want ok", got.State)
	}
	if q.watched["a"].monitor != first || in["a"].Place(backpressure.Asker{}).Limit != 20 {
		t.Error("a queue that stays has another monitor, or its old limit")
	}
	if in["b"].Places == nil || fmt.Sprint(in["a"].Places.Keys) == fmt.Sprint(in["b"].Places.Keys) {
		t.Error("the queues have the same places, or none")
	}
	if got := metrictest.Value(t, reg, "refrakt_gate_queue_limit_pending_jobs", "queue", "b"); got != 5 {
		t.Errorf("the limit of b is %v", got)
	}

	_, drop = q.apply([]policy.Queue{{Name: "b", MaxPending: 5}})
	drop()
	for range 2 { // its monitor, and its counter of jobs
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("a goroutine of a queue that is gone goes on")
		}
	}
	families, err := reg.Gather()
	must(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == queueLabel && l.GetValue() == "a" {
					t.Errorf("%s still has the queue that is gone", f.GetName())
				}
			}
		}
	}
	if running != 4 {
		t.Errorf("%d goroutines were started, want two for each queue", running)
	}
	stop()
	for range 2 {
		<-ended
	}
}
