package backpressure

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// fakeQueue stands in for a real queue where the clock is faked. Without admit, Admit
// must not be called.
type fakeQueue struct {
	mu     sync.Mutex
	r      Sample
	err    error
	asked  int
	sample func(context.Context, Cursor) (Sample, error)
	admit  func(context.Context) (Admission, error)
}

func (f *fakeQueue) Sample(ctx context.Context, since Cursor, _ bool) (Sample, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.sample != nil {
		return f.sample(ctx, since)
	}
	return f.r, f.err
}

func (f *fakeQueue) Admit(ctx context.Context, _ Place, _ time.Duration) (Admission, error) {
	return f.admit(ctx)
}

func newTestMonitor(cfg Config, q Queue) *Monitor {
	return NewMonitor(cfg, validLimits(), q, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fakeQueue) set(r Sample, err error) {
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
	m := NewMonitor(cfg, validLimits(), f, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&log, nil)))
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
		f := &fakeQueue{r: Sample{Pending: 3, Running: 2, Workers: 1, OldestAge: 7 * time.Second, AgeKnown: true}}
		m, log := startFake(t, validConfig(), f)
		synctest.Wait() // the first sample: shown without waiting for the poll
		wantState(t, m, StateOK)
		wantGauge(t, m.metrics.pending, 3)
		wantGauge(t, m.metrics.running, 2)
		wantGauge(t, m.metrics.workers, 1)
		wantGauge(t, m.metrics.oldest, 7)

		after(1500 * time.Millisecond)
		f.set(Sample{Pending: 4, AgeKnown: true}, nil)
		after(time.Second) // 2.5 s: sampled, but polled only at 5 s
		if got := m.newest.Load().Pending; got != 4 {
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
		f.set(Sample{Pending: 40, AgeKnown: true}, nil)
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
		good := Sample{Pending: 3, AgeKnown: true}
		f := &fakeQueue{r: good}
		m, log := startFake(t, validConfig(), f)
		after(500 * time.Millisecond)

		f.set(Sample{}, errors.New("connection refused"))
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
		if !m.breaker.Open() {
			t.Error("breaker still closed after 6 failures")
		}
		if age := m.sampleAge(); age != 6.5 {
			t.Errorf("sample age %v, want 6.5", age)
		}

		f.set(good, nil)
		after(time.Second)
		wantState(t, m, StateOK)
		wantGauge(t, m.metrics.pending, 3)
		wantGauge(t, m.metrics.state[StateOK], 1)
		if m.breaker.Open() {
			t.Error("breaker still open after a good sample")
		}
		changes := []string{"queue sampling fails.*connection refused", "Redis lost", "Redis is back", "queue sampling works again"}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		for i, line := range lines {
			if len(lines) != len(changes) || !regexp.MustCompile(changes[i]).MatchString(line) {
				t.Fatalf("logged %q, want one line for each of %q", lines, changes)
			}
		}
	})
}

// TestStateDoesNotFlap: a depth that moves around the threshold for a minute
// changes the state once, and yet room is seen at once by requests that Admit
// decides on.
func TestStateDoesNotFlap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeQueue{r: Sample{Pending: 30, AgeKnown: true}}
		m, _ := startFake(t, validConfig(), f)
		synctest.Wait()
		after(justNow) // from here on in step with the samples, so much later
		changes, before := 0, m.State()
		for second := range int64(60) {
			f.set(Sample{Pending: 37 + second*7%5, AgeKnown: true}, nil) // 37 to 41
			after(time.Second - justNow)
			if state := m.State(); state != before {
				changes, before = changes+1, state
			}
			after(justNow)
			if v := see(m).Shed(Asker{Address: "ann"}, true); v.State == StateFull && !v.Provisional {
				t.Fatalf("second %d: %s %v after the sample, want that Admit is asked", second, v.State, justNow)
			}
		}
		if changes != 1 || before != StateFull {
			t.Errorf("%d changes, at last %s, want one, to full", changes, before)
		}
		f.set(Sample{Pending: 35, AgeKnown: true}, nil)
		after(time.Second)
		wantState(t, m, StateOK)
	})
}

// TestShed: what is said of the queue to a request that Admit decides on, and to one
// that it does not see.
func TestShed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeQueue{r: Sample{Pending: 40, OldestAge: time.Minute, AgeKnown: true}}
		m := newTestMonitor(validConfig(), f)
		type said struct {
			state       State
			provisional bool
		}
		ask := func(addsJob bool) said {
			v := see(m).Shed(Asker{Address: "ann"}, addsJob)
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
		m.refused[plain].Store(&refusal{at: time.Now(), pending: 45})
		want("just refused", said{state: StateFull}, StateFull)
		after(justNow)
		want("refused a while ago", said{StateFull, true}, StateFull)
		want("while that one looks again", said{state: StateFull}, StateFull)
		after(justNow)
		want("it did not look", said{StateFull, true}, StateFull)
		f.set(Sample{Pending: 38, OldestAge: time.Minute, AgeKnown: true}, nil)
		must(t, m.Sample(t.Context()))
		want("just sampled a few below the limit", said{StateFull, true}, StateFull)
		f.set(Sample{Pending: 40, OldestAge: time.Hour, AgeKnown: true}, nil)
		must(t, m.Sample(t.Context()))
		after(justNow)
		want("slow besides", said{state: StateSlow}, StateFull)
		f.set(Sample{Pending: 30, OldestAge: time.Minute, AgeKnown: true}, nil)
		must(t, m.Sample(t.Context()))
		want("room again", said{state: StateOK}, StateOK)
		m.refused[plain].Store(&refusal{at: time.Now(), pending: 45})
		want("just refused, after a sample with room", said{state: StateFull}, StateOK)
		see(m).Admitted(Asker{Address: "ann"}, Admission{Admitted: true}, false)
		want("another one was admitted since", said{state: StateOK}, StateOK)
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
			f := new(fakeQueue)
			m := newTestMonitor(cfg, f)
			var waited time.Duration
			f.sample = func(ctx context.Context, _ Cursor) (Sample, error) {
				begin := time.Now()
				<-ctx.Done()
				waited = time.Since(begin)
				return Sample{}, ctx.Err()
			}
			m.step(t.Context())
			if waited != want {
				t.Errorf("interval %s: waited %s, want %s", interval, waited, want)
			}
			wantCounter(t, m.metrics.sampleErrors, 1)
		})
	}
}

// TestSlowSamplesOpenTheBreaker: answers that come late tell of the queue, and keep
// requests from waiting for theirs.
func TestSlowSamplesOpenTheBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		late := 251 * time.Millisecond
		f := new(fakeQueue)
		m := newTestMonitor(validConfig(), f)
		f.sample = func(context.Context, Cursor) (Sample, error) {
			time.Sleep(late)
			return Sample{Pending: 7, AgeKnown: true}, nil
		}
		for range breakerFailures {
			if m.breaker.Open() {
				t.Fatal("breaker open too early")
			}
			must(t, m.Sample(t.Context()))
		}
		for range 3 {
			after(breakerTimeout + time.Millisecond)
			must(t, m.Sample(t.Context()))
			if !m.breaker.Open() {
				t.Fatal("a late answer closed the breaker")
			}
			wantState(t, m, StateOK)
			if v := see(m).Admit(t.Context(), Asker{Address: "ann"}); v.State != StateUnknown {
				t.Errorf("state %s, want unknown", v.State)
			}
		}
		late = 250 * time.Millisecond
		after(breakerTimeout + time.Millisecond)
		must(t, m.Sample(t.Context()))
		if m.breaker.Open() {
			t.Error("an answer in time did not close the breaker")
		}
		wantCounter(t, m.metrics.sampleErrors, 0)
	})
}

// TestSampleAsksThroughAnOpenBreaker: whoever waits for Redis at the start needs
// the true reason, and the answer as soon as there is one.
func TestSampleAsksThroughAnOpenBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("connection refused")
		f := &fakeQueue{err: away}
		m := newTestMonitor(validConfig(), f)
		for range 2 * breakerFailures {
			if err := m.Sample(t.Context()); !errors.Is(err, away) {
				t.Fatalf("error %v, want %v", err, away)
			}
		}
		f.set(Sample{Pending: 1, AgeKnown: true}, nil)
		if err := m.Sample(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantState(t, m, StateOK)
	})
}

func TestSampleCallerGone(t *testing.T) {
	t.Parallel()
	f := new(fakeQueue)
	m := newTestMonitor(validConfig(), f)
	ctx, cancel := context.WithCancel(t.Context())
	f.sample = func(context.Context, Cursor) (Sample, error) {
		cancel()
		return Sample{}, errors.New("use of closed connection")
	}
	for range 2 * breakerFailures {
		if err := m.Sample(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v, want context.Canceled", err)
		}
	}
	wantCounter(t, m.metrics.sampleErrors, 0)
	if m.breaker.Open() {
		t.Error("breaker opened by a caller that left")
	}
}

func wantState(t *testing.T, m *Monitor, want State) {
	t.Helper()
	v := see(m).Shed(Asker{Address: "ann"}, false)
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
