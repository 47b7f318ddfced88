package page

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// ledger has counters of decisions, by policy.
type ledger map[string]counts

func (l ledger) decisions(each func(policy, verdict, reason string, n float64)) {
	for policy, counters := range l {
		for o, n := range counters {
			each(policy, o.verdict, o.reason, n)
		}
	}
}

func named(names ...string) (policies []Policy) {
	for _, name := range names {
		policies = append(policies, Policy{Name: name})
	}
	return policies
}

var (
	allowed = outcome{"allow", "ok"}
	limited = outcome{"deny", "rate_limited"}
)

// wantRecent compares the sum of a policy's last minutes.
func wantRecent(t *testing.T, h *history, l ledger, policy string, want counts) {
	t.Helper()
	for _, r := range h.recent(h.tracks.policies, l.decisions) {
		if r.Name != policy {
			continue
		}
		if !maps.Equal(r.Sum, want) {
			t.Errorf("%q: got %v, want %v", policy, r.Sum, want)
		}
		sum := make(counts)
		for _, bar := range r.Bars {
			for o, n := range bar {
				sum[o] += n
			}
		}
		if !maps.Equal(sum, want) {
			t.Errorf("%q: the bars have %v, want %v", policy, sum, want)
		}
		return
	}
	t.Errorf("%q is not there", policy)
}

// TestHistoryForgets: what the counters gain is seen at once, stays for 10 minutes, and in its bar.
func TestHistoryForgets(t *testing.T) {
	t.Parallel()
	h, l := newHistory(), ledger{"run": {allowed: 3}}
	wantTick := func(want counts) {
		t.Helper()
		h.tick(named("run"), l.decisions, nil)
		wantRecent(t, h, l, "run", want)
	}
	wantTick(counts{allowed: 3})
	l["run"][limited] = 2
	wantRecent(t, h, l, "run", counts{allowed: 3, limited: 2}) // not ticked yet
	wantTick(counts{allowed: 3, limited: 2})
	bar := func() int {
		i := slices.IndexFunc(h.recent(h.tracks.policies, l.decisions)[0].Bars[:], func(c counts) bool { return c[limited] > 0 })
		return i
	}
	if got := bar(); got != bars-1 {
		t.Errorf("the newest is in bar %d", got)
	}
	for range 2 * perBar {
		wantTick(counts{allowed: 3, limited: 2})
	}
	if got := bar(); got != bars-1-2 {
		t.Errorf("after the time of 2 bars it is in bar %d", got)
	}
	for range slots - 3 - 2*perBar {
		wantTick(counts{allowed: 3, limited: 2})
	}
	for range perBar {
		h.tick(named("run"), l.decisions, nil)
	}
	wantTick(counts{})
}

// TestHistoryCountersBeginAnew: a counter that begins anew adds what it has since then.
func TestHistoryCountersBeginAnew(t *testing.T) {
	t.Parallel()
	h, l := newHistory(), ledger{"run": {allowed: 10}}
	h.tick(named("run"), l.decisions, nil)
	l["run"][allowed] = 4
	wantRecent(t, h, l, "run", counts{allowed: 14})
	h.tick(named("run"), l.decisions, nil)
	wantRecent(t, h, l, "run", counts{allowed: 14})
}

// TestHistoryFollowsPolicies: policies come and go, and each has what it gained since it came.
func TestHistoryFollowsPolicies(t *testing.T) {
	t.Parallel()
	h, l := newHistory(), ledger{"run": {allowed: 1}, "gone": {allowed: 100}, policyNone: {allowed: 7}}
	h.tick(named("run", "gone"), l.decisions, nil)
	delete(l, "gone")
	l["new"] = counts{allowed: 5}
	l["run"][allowed] = 2
	h.tick(named("new", "run"), l.decisions, nil)
	wantRecent(t, h, l, "run", counts{allowed: 2})
	wantRecent(t, h, l, "new", counts{allowed: 5})
	wantRecent(t, h, l, policyNone, counts{allowed: 7})
	if got := len(h.recent(h.tracks.policies, l.decisions)); got != 4 {
		t.Errorf("%d tracks, want new, run, unknown, none", got)
	}
	l["gone"] = counts{allowed: 1} // a request that was under way
	h.tick(named("new", "run"), l.decisions, nil)
	if got := len(h.recent(h.tracks.policies, l.decisions)); got != 4 {
		t.Errorf("%d tracks with a policy that is gone", got)
	}
}

// TestHistoryOfManyPolicies: the first 12 have a track, the others share one. A policy that
// moves from one to the other makes no peak.
func TestHistoryOfManyPolicies(t *testing.T) {
	t.Parallel()
	names, l := []string{}, ledger{}
	for i := range 20 {
		names = append(names, fmt.Sprint("p", i))
		l[names[i]] = counts{allowed: 1000}
	}
	h := newHistory()
	h.tick(named(names...), l.decisions, nil)
	wantRecent(t, h, l, "p11", counts{allowed: 1000})
	wantRecent(t, h, l, "", counts{allowed: 8000})
	moved := named(append(slices.Clone(names[8:]), names[:8]...)...)
	h.tick(moved, l.decisions, nil)
	wantRecent(t, h, l, "p11", counts{allowed: 1000})
	wantRecent(t, h, l, "p12", counts{})
	wantRecent(t, h, l, "", counts{allowed: 8000})
	l["p12"][allowed]++
	l["p0"][allowed] += 2
	h.tick(moved, l.decisions, nil)
	wantRecent(t, h, l, "p12", counts{allowed: 1})
	wantRecent(t, h, l, "", counts{allowed: 8002})
	if got := h.recent(h.tracks.policies, l.decisions)[maxTracks].Merged; got != 8 {
		t.Errorf("%d policies share a track, want 8", got)
	}
}

func TestHistoryOfQueues(t *testing.T) {
	t.Parallel()
	h, nothing := newHistory(), ledger{}
	h.tick(nil, nothing.decisions, []Depth{{"a", 1, 10}})
	h.tick(nil, nothing.decisions, []Depth{{"a", math.NaN(), math.NaN()}, {"b", 2, 20}})
	h.tick(nil, nothing.decisions, []Depth{{"a", 3, 30}, {"b", 4, 40}})
	for queue, want := range map[string]string{"a": "[NaN 1 NaN 3] [NaN 10 NaN 30]", "b": "[NaN NaN 2 4] [NaN NaN 20 40]", "c": "[NaN NaN NaN NaN] [NaN NaN NaN NaN]"} {
		pending, age := h.depths(queue)
		if got := fmt.Sprint(pending[slots-4:], age[slots-4:]); got != want {
			t.Errorf("%s: got %s, want %s", queue, got, want)
		}
	}
	for range slots + 1 {
		h.tick(nil, nothing.decisions, []Depth{{"b", 5, 50}})
	}
	if len(h.queues) != 1 {
		t.Errorf("%d queues are kept, want 1", len(h.queues))
	}
	if pending, _ := h.depths("b"); slices.ContainsFunc(pending, func(n float64) bool { return n != 5 }) {
		t.Errorf("got %v, want 5 in each slot", pending)
	}
}

// TestSince: a trouble has its time as long as it lasts, also with another text.
func TestSince(t *testing.T) {
	t.Parallel()
	h, start := newHistory(), time.Unix(1000, 0)
	at := func(minutes int, troubles ...Trouble) string {
		got := make(map[string]float64)
		for key, since := range h.since(troubles, start.Add(time.Duration(minutes)*time.Minute)) {
			got[key] = since.Sub(start).Minutes()
		}
		return fmt.Sprint(got)
	}
	a, b := Trouble{Key: "a", Text: "x: one: two"}, Trouble{Key: "b", Text: "x: one: three"}
	for _, tt := range []struct{ got, want string }{
		{at(1, a), "map[a:1]"}, {at(2, b, a), "map[a:1 b:2]"}, {at(3, Trouble{Key: "b", Text: "another"}), "map[b:2]"}, {at(4, a, b), "map[a:4 b:2]"}, {at(5), "map[]"}, {at(6, b), "map[b:6]"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %s, want %s", tt.got, tt.want)
		}
	}
}

// TestRun: what the charts show is kept, and troubles get their times, without anybody who asks for the page.
func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := gateLike(1, 0)
		s.Degraded = func() []Trouble { return []Trouble{{Key: "a"}} }
		p := New(s, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		begin := time.Now()
		go func() { done <- p.Run(ctx) }()
		time.Sleep(3*slotTime + time.Second)
		pending, age := p.history.depths("default")
		if got := fmt.Sprint(pending[slots-4:], age[slots-4:]); got != "[NaN 1 1 1] [NaN 2 2 2]" {
			t.Errorf("got %s", got)
		}
		if got := p.history.since(p.troubles(), time.Now())["a"].Sub(begin); got != slotTime {
			t.Errorf("the trouble is known after %v, want %v", got, slotTime)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// gateLike has what a gate with so many policies and queues counts.
func gateLike(policies, queues int) Source {
	reg := prometheus.NewRegistry()
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "refrakt_gate_decisions_total", Help: "Decisions."}, []string{"policy", "verdict", "reason"})
	shadow := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "refrakt_gate_shadow_active", Help: "Shadows."}, []string{"policy", "check"})
	reg.MustRegister(vec, shadow)
	l, in := ledger{}, InForce{}
	for i := range policies {
		name := fmt.Sprint("policy-with-a-long-name-", i)
		in.Policies = append(in.Policies, Policy{name, "default", true})
		in.Words = append(in.Words, name+": /x/…; queue default", name+": each client IP: 10 at once, then 6 a minute", name+": each user: 10 at once")
		l[name] = counts{}
		for j := range 9 {
			o := outcome{"deny", fmt.Sprint("reason", j)}
			l[name][o] = float64(j)
			vec.WithLabelValues(name, o.verdict, o.reason).Add(float64(j))
		}
		shadow.WithLabelValues(name, "limit")
		shadow.WithLabelValues(name, "queue")
	}
	depths, g := []Depth{{"default", 1, 2}}, gauges{}
	for i := range queues {
		name := fmt.Sprint("queue-", i)
		in.Queues = append(in.Queues, name)
		depths = append(depths, Depth{name, 1, 2})
		queueNamed(g, name, 1000)
	}
	ofQueues, _ := g.Gather()
	metrics := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families, err := reg.Gather()
		return append(families, ofQueues...), err
	})
	none := func() []Trouble { return nil }
	return Source{
		Metrics: metrics, Reasons: none, Degraded: none, InForce: func() InForce { return in },
		Decisions: l.decisions, Depths: func() []Depth { return depths },
	}
}

func BenchmarkTick(b *testing.B) {
	for _, policies := range []int{2, 1000} {
		b.Run(fmt.Sprint(policies), func(b *testing.B) {
			source := gateLike(policies, 0)
			p := New(source, nil)
			b.ReportAllocs()
			for b.Loop() {
				p.tick(time.Now())
			}
		})
	}
}
