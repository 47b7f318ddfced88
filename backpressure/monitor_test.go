package backpressure

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
)

// fakeQueue stands in for Redis where the clock is faked.
type fakeQueue struct {
	mu    sync.Mutex
	r     reading
	err   error
	asked int
}

func (f *fakeQueue) read(context.Context, marks) (reading, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return f.r, f.err
}

func (f *fakeQueue) set(r reading, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.r, f.err = r, err
}

func (f *fakeQueue) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// startFake runs a monitor over a fake queue until the test ends; it is to be
// called within a bubble.
func startFake(t *testing.T, cfg Config, f *fakeQueue) (*Monitor, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	m := NewMonitor(cfg, nil, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&log, nil)))
	m.read = f.read
	wantState(t, m, StateUnknown) // before the first sample
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
	return m, &log
}

func after(d time.Duration) {
	<-time.NewTimer(d).C // in a bubble: as soon as all else waits
	synctest.Wait()
}

func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeQueue{r: reading{pending: 3, running: 2, workers: 1, age: 7 * time.Second, ageKnown: true}}
		m, log := startFake(t, validConfig(), f)
		synctest.Wait() // the first sample: shown without waiting for the poll
		wantState(t, m, StateOK)
		wantGauge(t, m.metrics.pending, 3)
		wantGauge(t, m.metrics.running, 2)
		wantGauge(t, m.metrics.workers, 1)
		wantGauge(t, m.metrics.oldest, 7)

		after(1500 * time.Millisecond)
		f.set(reading{pending: 4, ageKnown: true}, nil)
		after(time.Second) // 2.5 s: sampled, but polled only at 5 s
		if got := m.newest.Load().pending; got != 4 {
			t.Errorf("newest sample has %d pending, want 4", got)
		}
		wantGauge(t, m.metrics.pending, 3)
		after(3 * time.Second) // 5.5 s
		wantGauge(t, m.metrics.pending, 4)
		wantGauge(t, m.metrics.oldest, 0)
		if got := f.count(); got != 6 {
			t.Errorf("%d samples in 5.5 s, want 6", got)
		}

		// A change of state is shown at the next sample.
		f.set(reading{pending: 40, ageKnown: true}, nil)
		after(time.Second)
		wantState(t, m, StateFull)
		wantGauge(t, m.metrics.state[StateFull], 1)
		wantGauge(t, m.metrics.state[StateOK], 0)
		wantGauge(t, m.metrics.pending, 40)
		if log.Len() != 0 {
			t.Errorf("logged %q, want nothing", log)
		}
	})
}

func TestRunThroughAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		good := reading{pending: 3, ageKnown: true}
		f := &fakeQueue{r: good}
		m, log := startFake(t, validConfig(), f)
		after(500 * time.Millisecond)

		f.set(reading{}, errors.New("connection refused"))
		after(4 * time.Second) // the newest sample is 4.5 s old
		wantState(t, m, StateOK)
		wantGauge(t, m.metrics.pending, 3)
		wantGauge(t, m.metrics.state[StateOK], 1)

		after(2 * time.Second) // 6.5 s
		wantState(t, m, StateUnknown)
		for _, g := range []prometheus.Gauge{m.metrics.pending, m.metrics.running, m.metrics.oldest, m.metrics.workers, m.metrics.drainRate} {
			wantGauge(t, g, math.NaN())
		}
		wantGauge(t, m.metrics.state[StateUnknown], 1)
		wantGauge(t, m.metrics.state[StateOK], 0)
		wantCounter(t, m.metrics.sampleErrors, 6)
		if m.circuit.closed() {
			t.Error("circuit still closed after 6 failures")
		}
		if age := m.sampleAge(); age != 6.5 {
			t.Errorf("sample age %v, want 6.5", age)
		}

		f.set(good, nil)
		after(time.Second)
		wantState(t, m, StateOK)
		wantGauge(t, m.metrics.pending, 3)
		wantGauge(t, m.metrics.state[StateOK], 1)
		if !m.circuit.closed() {
			t.Error("circuit still open after a good sample")
		}
		if lines := strings.Split(strings.TrimSpace(log.String()), "\n"); len(lines) != 2 ||
			!strings.Contains(lines[0], "queue sampling fails") || !strings.Contains(lines[0], "connection refused") ||
			!strings.Contains(lines[1], "queue sampling works again") {
			t.Errorf("logged %q, want one line for each change", lines)
		}
	})
}

// TestStateDoesNotFlap: a depth that moves around the threshold for a minute
// changes the state once, and yet room is seen at once by requests that Admit
// decides on.
func TestStateDoesNotFlap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeQueue{r: reading{pending: 30, ageKnown: true}}
		m, _ := startFake(t, validConfig(), f)
		synctest.Wait()
		after(justNow) // from here on in step with the samples, so much later
		changes, before := 0, m.State()
		for second := range int64(60) {
			f.set(reading{pending: 37 + second*7%5, ageKnown: true}, nil) // 37 to 41
			after(time.Second - justNow)
			if state := m.State(); state != before {
				changes, before = changes+1, state
			}
			after(justNow)
			if v := m.Shed("ann", true); v.State == StateFull && !v.Provisional {
				t.Fatalf("second %d: %s %v after the sample, want that Admit is asked", second, v.State, justNow)
			}
		}
		if changes != 1 || before != StateFull {
			t.Errorf("%d changes, at last %s, want one, to full", changes, before)
		}
		f.set(reading{pending: 35, ageKnown: true}, nil)
		after(time.Second)
		wantState(t, m, StateOK)
	})
}

// TestShed: what is said of the queue to a request that Admit decides on, and to one
// that it does not see.
func TestShed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeQueue{r: reading{pending: 40, age: time.Minute, ageKnown: true}}
		m := newTestMonitor(validConfig(), nil)
		m.read = f.read
		type said struct {
			state       State
			provisional bool
		}
		ask := func(addsJob bool) said {
			v := m.Shed("ann", addsJob)
			return said{v.State, v.Provisional}
		}
		want := func(why string, want said, without State) {
			t.Helper()
			if got := ask(true); got != want {
				t.Errorf("%s: %v, want %v", why, got, want)
			}
			if got := ask(false); got != (said{state: without}) {
				t.Errorf("%s, without a job: %v, want %s", why, got, without)
			}
		}
		want("no sample", said{state: StateUnknown}, StateUnknown)
		must(t, m.Sample(t.Context()))
		want("just sampled full", said{state: StateFull}, StateFull)
		after(justNow)
		want("sampled full a while ago", said{StateFull, true}, StateFull)
		m.refused.Store(&refusal{at: time.Now(), pending: 45})
		want("just refused", said{state: StateFull}, StateFull)
		after(justNow)
		want("refused a while ago", said{StateFull, true}, StateFull)
		f.set(reading{pending: 38, age: time.Minute, ageKnown: true}, nil)
		must(t, m.Sample(t.Context()))
		want("just sampled a few below the limit", said{StateFull, true}, StateFull)
		f.set(reading{pending: 40, age: time.Hour, ageKnown: true}, nil)
		must(t, m.Sample(t.Context()))
		after(justNow)
		want("slow besides", said{state: StateSlow}, StateFull)
		f.set(reading{pending: 30, age: time.Minute, ageKnown: true}, nil)
		must(t, m.Sample(t.Context()))
		want("room again", said{state: StateOK}, StateOK)
		m.refused.Store(&refusal{at: time.Now(), pending: 45})
		want("just refused, after a sample with room", said{state: StateFull}, StateOK)
	})
}

// TestRunBoundsASample: a Redis that never answers costs no more than the
// interval, and a second at most.
func TestRunBoundsASample(t *testing.T) {
	t.Parallel()
	for interval, want := range map[time.Duration]time.Duration{
		200 * time.Millisecond: 200 * time.Millisecond,
		3 * time.Second:        time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			cfg := validConfig()
			cfg.SampleInterval = interval
			m := newTestMonitor(cfg, nil)
			var waited time.Duration
			m.read = func(ctx context.Context, _ marks) (reading, error) {
				begin := time.Now()
				<-ctx.Done()
				waited = time.Since(begin)
				return reading{}, ctx.Err()
			}
			m.step(t.Context())
			if waited != want {
				t.Errorf("interval %s: waited %s, want %s", interval, waited, want)
			}
			wantCounter(t, m.metrics.sampleErrors, 1)
		})
	}
}

// TestSlowSamplesOpenTheCircuit: answers that come late tell of the queue, and keep
// requests from waiting for theirs.
func TestSlowSamplesOpenTheCircuit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		late := slowAnswer + time.Millisecond
		m := newTestMonitor(validConfig(), nil) // a nil client: Admit would panic if it asked
		m.read = func(context.Context, marks) (reading, error) {
			time.Sleep(late)
			return reading{pending: 7, ageKnown: true}, nil
		}
		for range circuitFailures {
			if !m.circuit.closed() {
				t.Fatal("circuit open too early")
			}
			must(t, m.Sample(t.Context()))
		}
		for range 3 {
			after(circuitTimeout + time.Millisecond)
			must(t, m.Sample(t.Context()))
			if m.circuit.closed() {
				t.Fatal("a late answer closed the circuit")
			}
			wantState(t, m, StateOK)
			if v := m.Admit(t.Context(), "ann"); v.State != StateUnknown {
				t.Errorf("state %s, want unknown", v.State)
			}
		}
		late = slowAnswer
		after(circuitTimeout + time.Millisecond)
		must(t, m.Sample(t.Context()))
		if !m.circuit.closed() {
			t.Error("an answer in time did not close the circuit")
		}
		wantCounter(t, m.metrics.sampleErrors, 0)
	})
}

// TestSampleAsksThroughAnOpenCircuit: whoever waits for Redis at the start needs
// the true reason, and the answer as soon as there is one.
func TestSampleAsksThroughAnOpenCircuit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("connection refused")
		f := &fakeQueue{err: away}
		m := newTestMonitor(validConfig(), nil)
		m.read = f.read
		for range 2 * circuitFailures {
			if err := m.Sample(t.Context()); !errors.Is(err, away) {
				t.Fatalf("error %v, want %v", err, away)
			}
		}
		f.set(reading{pending: 1, ageKnown: true}, nil)
		if err := m.Sample(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantState(t, m, StateOK)
	})
}

func TestSampleCallerGone(t *testing.T) {
	t.Parallel()
	m := newTestMonitor(validConfig(), nil)
	ctx, cancel := context.WithCancel(t.Context())
	m.read = func(context.Context, marks) (reading, error) {
		cancel()
		return reading{}, redis.ErrClosed
	}
	for range 2 * circuitFailures {
		if err := m.Sample(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v, want context.Canceled", err)
		}
	}
	wantCounter(t, m.metrics.sampleErrors, 0)
	if !m.circuit.closed() {
		t.Error("circuit opened by a caller that left")
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		h := health{log: slog.New(slog.NewTextHandler(&log, nil)), what: "it", quiet: 10 * time.Second}
		for range 20 { // now and then, for 20 s
			h.failed(errors.New("why"))
			h.succeeded()
			after(time.Second)
		}
		after(10 * time.Second)
		h.succeeded()
		h.succeeded()
		if got := strings.Count(log.String(), "\n"); got != 2 {
			t.Errorf("%d lines, want 2:\n%s", got, &log)
		}
	})
}

// TestRedisRestart: with a true Redis killed under a running monitor, requests
// stop waiting, the state becomes unknown, and nobody is needed for recovery.
func TestRedisRestart(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := server.Client(t)
	cfg := validConfig()
	cfg.SampleInterval, cfg.StaleAfter = 100*time.Millisecond, time.Second
	m := newTestMonitor(cfg, rdb)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()

	eventually(t, "ok at the start", func() bool { return m.State() == StateOK })
	if v := m.Admit(t.Context(), "ann"); v.State != StateOK {
		t.Errorf("state %s before the outage, want ok", v.State)
	}

	server.Kill()
	killed := time.Now()
	eventually(t, "circuit open", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if v := m.Admit(ctx, "ann"); v.State != StateUnknown {
			t.Errorf("state %s without Redis, want unknown", v.State)
		}
		return !m.circuit.closed()
	})
	errorsWhenOpen := value(t, m.metrics.admitErrors)
	if errorsWhenOpen == 0 {
		t.Error("no failed admission counted")
	}
	begin := time.Now()
	for range 1000 {
		m.Admit(t.Context(), "ann")
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("1000 admissions took %s with the circuit open", took)
	}
	wantCounter(t, m.metrics.admitErrors, errorsWhenOpen) // none of them asked
	eventually(t, "unknown", func() bool { return m.State() == StateUnknown })
	if passed := time.Since(killed); passed < cfg.StaleAfter-2*cfg.SampleInterval {
		t.Errorf("unknown after %s, before the sample was stale", passed)
	}
	eventually(t, "gauges unknown", func() bool { return math.IsNaN(value(t, m.metrics.pending)) })

	server.Restart()
	eventually(t, "ok again", func() bool { return m.State() == StateOK })
	eventually(t, "admitting again", func() bool { return m.Admit(t.Context(), "ann").State == StateOK })
	eventually(t, "gauges known", func() bool { return value(t, m.metrics.pending) == 0 })

	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run returned %v, want nil", err)
	}
}

func wantState(t *testing.T, m *Monitor, want State) {
	t.Helper()
	v := m.Shed("ann", false)
	if v.State != want || (v.RetryAfter == nil) != (want == StateOK) {
		t.Fatalf("state %s, want %s", v.State, want)
	}
	if want == StateOK {
		return
	}
	if wait := v.RetryAfter(); wait < time.Second || wait%time.Second != 0 {
		t.Errorf("%s for %s, want whole seconds", want, wait)
	}
}

func wantGauge(t *testing.T, g prometheus.Gauge, want float64) {
	t.Helper()
	if got := value(t, g); got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
		t.Errorf("%s is %v, want %v", g.Desc(), got, want)
	}
}

func wantCounter(t *testing.T, c prometheus.Counter, want float64) {
	t.Helper()
	if got := value(t, c); got != want {
		t.Errorf("%s is %v, want %v", c.Desc(), got, want)
	}
}

// value is what a single gauge or counter says.
func value(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	if err := reg.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil || len(families) != 1 || len(families[0].GetMetric()) != 1 {
		t.Fatalf("gathered %v, %v, want a single metric", families, err)
	}
	metric := families[0].GetMetric()[0]
	if metric.GetGauge() != nil {
		return metric.GetGauge().GetValue()
	}
	return metric.GetCounter().GetValue()
}
