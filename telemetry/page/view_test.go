package page

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// gauges are families of gauges, by series: `name` or `name{a="b"}`.
type gauges map[string]float64

var seriesForm = regexp.MustCompile(`^([a-z_]+)(?:\{(.*)\})?$`)

// Gather implements [prometheus.Gatherer].
func (g gauges) Gather() (families []*dto.MetricFamily, _ error) {
	byName := make(map[string]*dto.MetricFamily)
	for text, value := range g {
		parts := seriesForm.FindStringSubmatch(text)
		if byName[parts[1]] == nil {
			byName[parts[1]] = &dto.MetricFamily{Name: &parts[1]}
			families = append(families, byName[parts[1]])
		}
		metric := &dto.Metric{Gauge: &dto.Gauge{Value: &value}}
		for pair := range strings.SplitSeq(parts[2], ",") {
			if name, label, ok := strings.Cut(pair, "="); ok {
				label = strings.Trim(label, `"`)
				metric.Label = append(metric.Label, &dto.LabelPair{Name: &name, Value: &label})
			}
		}
		byName[parts[1]].Metric = append(byName[parts[1]].Metric, metric)
	}
	return families, nil
}

// queueGauges are those of one queue in this state.
func queueGauges(state string, pending, age float64) gauges {
	g := gauges{
		"refrakt_queue_pending_jobs": pending, "refrakt_gate_queue_limit_pending_jobs": 40,
		"refrakt_queue_oldest_pending_seconds": age, "refrakt_gate_queue_limit_age_seconds": 600,
		"refrakt_queue_running_jobs": 2, "refrakt_gate_queue_live_workers": math.NaN(), "refrakt_gate_queue_drain_jobs_per_second": 0.5,
		`refrakt_gate_shadow_active{check="limit",policy="run"}`: 0, `refrakt_gate_shadow_active{check="queue",policy="run"}`: 0,
	}
	for _, s := range []string{"ok", "full", "slow", "unknown"} {
		g[`refrakt_gate_queue_state{state="`+s+`"}`] = 0
	}
	g[`refrakt_gate_queue_state{state="`+state+`"}`] = 1
	return g
}

func testSource(metrics prometheus.Gatherer) Source {
	none := func() []Trouble { return nil }
	return Source{
		Metrics: metrics, Reasons: none, Degraded: none,
		InForce: func() InForce {
			return InForce{Policies: []Policy{{"run", "default", true}}, Queues: []string{"default"}}
		},
		Decisions: ledger{}.decisions, Depths: func() []Depth { return nil },
	}
}

func render(t *testing.T, s Source) string {
	t.Helper()
	var out bytes.Buffer
	if err := New(s, slog.New(slog.DiscardHandler)).write(&out, time.Unix(1_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

var headlineForm = regexp.MustCompile(`class="headline (\w+)">([^<]*)<`)

// TestHeadlines: the page begins with what matters most.
func TestHeadlines(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		reasons, degraded []string
		gauges            gauges
		change            func(gauges)
		want              []string
	}{
		"healthy":   {want: []string{"ok Healthy"}, gauges: queueGauges("ok", 1, 1)},
		"no series": {want: []string{"ok Healthy"}, gauges: gauges{}},
		"full":      {want: []string{"bad The queue is full: new jobs get 503"}, gauges: queueGauges("full", 40, 1)},
		"slow":      {want: []string{"bad The queue is slow: new jobs get 503"}, gauges: queueGauges("slow", 4, 601)},
		"full but for the reserve": {
			want:   []string{"warn The queue is full for callers without reserved places: their new jobs get 503"},
			gauges: queueGauges("full", 40, 1), change: func(g gauges) { g["refrakt_gate_queue_reserve_used_up"] = 0 },
		},
		"full with the reserve": {
			want:   []string{"bad The queue is full: new jobs get 503"},
			gauges: queueGauges("full", 40, 1), change: func(g gauges) { g["refrakt_gate_queue_reserve_used_up"] = 1 },
		},
		"full in shadow mode": {
			want:   []string{"note The queue is full, but no policy enforces that: requests pass", "note Checks in shadow mode, which deny nothing: 1"},
			gauges: queueGauges("full", 40, 1), change: func(g gauges) { g[`refrakt_gate_shadow_active{check="queue",policy="run"}`] = 1 },
		},
		"no worker": {
			want:   []string{"bad The queue is full: new jobs get 503", "warn The queue has jobs that wait, and no worker is alive"},
			gauges: queueGauges("full", 40, 1), change: func(g gauges) { g["refrakt_gate_queue_live_workers"] = 0 },
		},
		"no worker, no jobs": {want: []string{"ok Healthy"}, gauges: queueGauges("ok", 0, 0), change: func(g gauges) { g["refrakt_gate_queue_live_workers"] = 0 }},
		"a worker":           {want: []string{"ok Healthy"}, gauges: queueGauges("ok", 5, 0), change: func(g gauges) { g["refrakt_gate_queue_live_workers"] = 1 }},
		"certificates": {want: []string{"warn The certificate of the port grpc is not renewed"}, gauges: gauges{
			`refrakt_gate_certificate_not_before_timestamp_seconds{port="grpc"}`: 1_000_000 - 81, `refrakt_gate_certificate_not_after_timestamp_seconds{port="grpc"}`: 1_000_000 + 19,
			`refrakt_gate_certificate_not_before_timestamp_seconds{port="telemetry"}`: 1_000_000 - 79, `refrakt_gate_certificate_not_after_timestamp_seconds{port="telemetry"}`: 1_000_000 + 21,
		}},
		"starting": {want: []string{"bad Not ready: starting: ping Redis"}, reasons: []string{"starting: ping Redis"}, gauges: queueGauges("unknown", math.NaN(), math.NaN())},
		"stopping while degraded and full": {
			want:    []string{"bad Stopping: the process was told to stop", "bad The queue is full: new jobs get 503", "warn Degraded: limiter: away"},
			reasons: []string{"stopping: the process was told to stop"}, degraded: []string{"limiter: away"}, gauges: queueGauges("full", 40, 1),
		},
		"degraded twice": {want: []string{"warn Degraded: 2 things do not work as they should"}, degraded: []string{"a", "b"}, gauges: queueGauges("ok", 1, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.change != nil {
				tt.change(tt.gauges)
			}
			s := testSource(tt.gauges)
			s.Reasons, s.Degraded = func() []Trouble { return troublesOf(tt.reasons) }, func() []Trouble { return troublesOf(tt.degraded) }
			body := render(t, s)
			var got []string
			for _, m := range headlineForm.FindAllStringSubmatch(body, -1) {
				got = append(got, m[1]+" "+m[2])
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			for _, text := range append(tt.reasons, tt.degraded...) {
				if !strings.Contains(body, `<span class="text">`+text+`</span> <span class="since">since 13:46:40 UTC, for 0 s`) {
					t.Errorf("no line says since when %q", text)
				}
			}
		})
	}
}

// queueNamed has the numbers of a queue by its name, which are n, n+1 and so on.
func queueNamed(g gauges, queue string, n float64) {
	label := `{queue="` + queue + `"}`
	for i, metric := range []string{
		"refrakt_queue_pending_jobs", "refrakt_gate_queue_limit_pending_jobs", "refrakt_queue_oldest_pending_seconds",
		"refrakt_gate_queue_limit_age_seconds", "refrakt_queue_running_jobs", "refrakt_gate_queue_live_workers",
		"refrakt_gate_queue_sample_age_seconds", "refrakt_gate_queue_largest_share_jobs", "refrakt_gate_queue_share_limit_jobs",
	} {
		g[metric+label] = n + float64(i)
	}
	g["refrakt_gate_queue_drain_jobs_per_second"+label] = n
	g["refrakt_gate_queue_reserve_used_up"+label] = 1
	g[`refrakt_gate_queue_state{queue="`+queue+`",state="ok"}`] = 1
	g[`refrakt_gate_queue_state{queue="`+queue+`",state="full"}`] = 0
}

// TestView: each part of the page has what belongs there, and of the right queue.
func TestView(t *testing.T) {
	t.Parallel()
	const now = 1_000_000
	g := gauges{
		`refrakt_gate_build_info{version="1.2.3"}`: 1, "process_start_time_seconds": now - 90, "refrakt_gate_guards_nothing": 1,
		"refrakt_gate_policy_reload_successful": 0, "refrakt_gate_policy_reload_success_timestamp_seconds": now - 60,
		`refrakt_gate_envoy_doubts_total{about="never"}`: 0, `refrakt_gate_envoy_doubts_total{about="often"}`: 1200,
	}
	queueNamed(g, "b", 100)
	queueNamed(g, "a", 20)
	s := testSource(g)
	in := InForce{Queues: []string{"b", "a"}, Words: []string{"in words"}, Switches: []Switch{{"QUEUE_FAILURE_MODE", "deny"}}}
	for i := range maxTracks + 2 {
		name := fmt.Sprint("p", i)
		in.Policies = append(in.Policies, Policy{Name: name, Queue: "a", Limited: true})
		g[`refrakt_gate_shadow_active{check="limit",policy="`+name+`"}`] = float64(i % 2)
		g[`refrakt_gate_shadow_active{check="queue",policy="`+name+`"}`] = float64(1 - i%2)
	}
	s.InForce = func() InForce { return in }
	s.Doubts, s.MetricsRoute = map[string]string{"often": "it is often so", "never": "it is never so"}, "/m/etrics"
	p := New(s, slog.New(slog.DiscardHandler))
	p.history.tick(nil, ledger{}.decisions, []Depth{{"a", 7, 70}, {"b", 8, 80}})
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	v := p.view(newMetrics(families), time.Unix(now, 0))
	if len(v.Queues) != 2 || len(v.Doubts) != 1 || len(v.Policies) != maxTracks+1 {
		t.Fatalf("%d queues, %d doubts, %d policies", len(v.Queues), len(v.Doubts), len(v.Policies))
	}
	b, a := v.Queues[0], v.Queues[1]
	for name, tt := range map[string]struct{ got, want any }{
		"version":      {v.Version, "1.2.3"},
		"running for":  {v.Started.Text, "1 min 30 s"},
		"now":          {v.Now, "13:46:40 UTC"},
		"metrics":      {v.Metrics, "m/etrics"},
		"words":        {v.Words, in.Words},
		"switches":     {v.Switches, in.Switches},
		"not guarded":  {v.NotGuarded.Text, "yes"},
		"reload":       {v.Reload.Text, "has a mistake; what was in force remains in force"},
		"reloaded":     {v.Reloaded.Text, "13:45:40 UTC"},
		"doubt":        {v.Doubts[0].About + " " + v.Doubts[0].Count.Text + " " + v.Doubts[0].Words, "often 1,200 it is often so"},
		"in shadow":    {v.InShadow, []string{"p12: queue", "p13: limit"}},
		"modes":        {v.Policies[1].Limits.Text + ", " + v.Policies[1].Queue.Text, "shadow mode, enforced"},
		"queues":       {b.Name + a.Name, "ba"},
		"state":        {a.State + " " + a.Level + " " + a.StateIs.Series, `ok ok refrakt_gate_queue_state{queue="a",state="ok"}`},
		"pending":      {a.Pending.Text + " " + a.Limit.Text + ", " + b.Pending.Text + " " + b.Limit.Text, "20 of 21, 100 of 101"},
		"age":          {a.Age.Text + " " + a.AgeLimit.Text, "22 s of 23 s"},
		"drain":        {a.Drain.Text, "1,200"},
		"others":       {a.Running.Text + " " + a.Workers.Text + " " + a.SampleAge.Text, "24 25 26 s"},
		"fair share":   {a.LargestShare.Text + " of " + a.ShareLimit.Text, "27 of 28"},
		"reserve":      {a.ReserveUsedUp.Text, "yes"},
		"bars":         {[]float64{a.PendingBar.Width, a.AgeBar.Width}, []float64{95.24, 95.65}},
		"enforced":     {[]bool{a.Enforced, b.Enforced}, []bool{true, false}},
		"pending line": {[]any{a.PendingLine.Path, a.PendingLine.Limit, a.PendingLine.Most}, []any{"M238 32.33L240 5.1", 3.0, "20"}},
		"age line":     {[]any{a.AgeLine.Most, a.AgeLine.Limit, b.AgeLine.Most}, []any{"1 min 10 s", 32.54, "1 min 42 s"}},
	} {
		if !reflect.DeepEqual(tt.got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, tt.got, tt.want)
		}
	}
	body := render(t, s)
	for _, want := range []string{
		"refrakt-gate 1.2.3", `<a href="m/etrics">`, `<a href="readyz">`, `<a href="healthz">`, "None of the requests that Envoy asks about is guarded",
		`<noscript><meta http-equiv="refresh" content="5"></noscript>`, "AbortSignal.timeout(4000)",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s", want)
		}
	}
}

// TestChecks: only checks that the gate makes are called enforced or in shadow mode.
func TestChecks(t *testing.T) {
	t.Parallel()
	g := gauges{}
	in := InForce{Policies: []Policy{{"both", "default", true}, {"no-queue", "", true}, {"no-limits", "default", false}, {"neither", "", false}}}
	for i := range maxTracks {
		in.Policies = append(in.Policies, Policy{fmt.Sprint("more", i), "", i == maxTracks-1})
	}
	for _, policy := range in.Policies {
		g[`refrakt_gate_shadow_active{check="limit",policy="`+policy.Name+`"}`] = 1
		g[`refrakt_gate_shadow_active{check="queue",policy="`+policy.Name+`"}`] = 1
	}
	checks := regexp.MustCompile(`(?s)<article data-policy="([^"]+)">.*?</article>`)
	tags := regexp.MustCompile(`<[^>]*>`)
	for _, tt := range []struct {
		limitsOff bool
		want      []string
		headlines []string
		inShadow  string
	}{
		{false, []string{"both limits: shadow mode queue: shadow mode", "no-queue limits: shadow mode", "no-limits queue: shadow mode", "neither"},
			[]string{"Healthy", "Checks in shadow mode, which deny nothing: 5"}, "more11: limit"},
		{true, []string{"both limits: not asked queue: shadow mode", "no-queue limits: not asked", "no-limits queue: shadow mode", "neither"},
			[]string{"Healthy", "Rate limits are off: no request is limited by them", "Checks in shadow mode, which deny nothing: 2"}, ""},
	} {
		in.LimitsOff = tt.limitsOff
		s := testSource(g)
		s.InForce = func() InForce { return in }
		body := render(t, s)
		var got []string
		for _, article := range checks.FindAllStringSubmatch(body, 4) {
			_, line, _ := strings.Cut(article[0], `<p class="checks">`)
			got = append(got, strings.Join(strings.Fields(article[1]+" "+tags.ReplaceAllString(line, " ")), " "))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("limits off %v: got %q, want %q", tt.limitsOff, got, tt.want)
		}
		if got := headlinesOf(body); !slices.Equal(got, tt.headlines) {
			t.Errorf("limits off %v: got %q, want %q", tt.limitsOff, got, tt.headlines)
		}
		if got := strings.Contains(body, "Other policies in shadow mode"); got != (tt.inShadow != "") || !strings.Contains(body, tt.inShadow) {
			t.Errorf("limits off %v: policies without a chart are in shadow mode: %v, want %q", tt.limitsOff, got, tt.inShadow)
		}
	}
}

// headlinesOf are the texts of a page's headlines.
func headlinesOf(body string) (texts []string) {
	for _, m := range headlineForm.FindAllStringSubmatch(body, -1) {
		texts = append(texts, m[2])
	}
	return texts
}

// TestKinds: each reason counts as what the client gets.
func TestKinds(t *testing.T) {
	t.Parallel()
	for kind, reasons := range map[string]string{
		"allowed": "allow: ok exempt preflight not_guarded",
		"passed":  "allow: rate_limited limiter_unavailable queue_full queue_slow queue_unknown queue_share overloaded internal unknown_policy",
		"k429":    "deny: rate_limited queue_share",
		"k403":    "deny: forbidden",
		"k503":    "deny: queue_full queue_slow queue_unknown limiter_unavailable overloaded internal unknown_policy",
	} {
		verdict, list, _ := strings.Cut(reasons, ": ")
		for reason := range strings.FieldsSeq(list) {
			if got := (outcome{verdict, reason}).kind(); got != kind {
				t.Errorf("%s %s: got %s, want %s", verdict, reason, got, kind)
			}
		}
	}
}

// troublesOf are those with these texts, whose keys are the first words.
func troublesOf(texts []string) (all []Trouble) {
	for _, text := range texts {
		key, _, _ := strings.Cut(text, ":")
		all = append(all, Trouble{Key: key, Text: text})
	}
	return all
}

// TestTroublesOfQueues: what is the same of several queues is one trouble, as old as the oldest.
func TestTroublesOfQueues(t *testing.T) {
	t.Parallel()
	s := testSource(gauges{})
	var troubles []Trouble
	s.Degraded = func() []Trouble { return troubles }
	p, start := New(s, slog.New(slog.DiscardHandler)), time.Unix(1_000_000, 0)
	lines := func(after time.Duration) (lines []string) {
		v := p.view(newMetrics(nil), start.Add(after))
		for _, trouble := range v.Troubles {
			lines = append(lines, trouble.Text+" for "+trouble.For)
		}
		return append(lines, v.Headlines[0].Text)
	}
	unknown := func(queue string) Trouble { return Trouble{"state of " + queue, queue, "queue: state unknown"} }
	for _, tt := range []struct {
		troubles []Trouble
		want     []string
	}{
		{[]Trouble{unknown("b")}, []string{"b: queue: state unknown for 0 s", "Degraded: b: queue: state unknown"}},
		{[]Trouble{unknown("a"), {"use of a", "a", "queue: unused"}, unknown("b"), {"routes", "", "routes: none"}},
			[]string{"a, b: queue: state unknown for 1 min", "a: queue: unused for 0 s", "routes: none for 0 s", "Degraded: 3 things do not work as they should"}},
	} {
		troubles = tt.troubles
		after := time.Duration(0)
		if len(troubles) > 1 {
			after = time.Minute
		}
		if got := lines(after); !slices.Equal(got, tt.want) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// TestUnknownIsNotZero: what is not known, and what does not exist, is called unknown.
func TestUnknownIsNotZero(t *testing.T) {
	t.Parallel()
	body := render(t, testSource(queueGauges("unknown", math.NaN(), math.NaN())))
	for _, want := range []string{
		`data-metric="refrakt_queue_pending_jobs" data-value="NaN">unknown<`,
		`data-metric="refrakt_queue_oldest_pending_seconds" data-value="NaN">unknown<`,
		`data-metric="refrakt_gate_queue_live_workers" data-value="NaN">unknown<`,
		`<dt>Age of the sample</dt><dd><b class="number unknown">unknown</b>`,
		`data-metric="refrakt_gate_queue_drain_jobs_per_second" data-value="0.5">30<`,
		"nothing is known of the last 10 minutes", `<p class="axis">none</p>`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(body, `class="gauge`) {
		t.Error("a value that is not known is drawn")
	}
}

// TestMarkup: no text that is not the page's own becomes markup.
func TestMarkup(t *testing.T) {
	t.Parallel()
	const evil = `</script></style><script>alert(1)</script><img src=x onerror=alert(2)>"'` + "`"
	s := testSource(gauges{`refrakt_gate_build_info{version="<script>"}`: 1})
	troubles := func() []Trouble { return []Trouble{{evil, evil, evil}} }
	s.Reasons, s.Degraded, s.MetricsRoute = troubles, troubles, "/"+evil
	s.InForce = func() InForce {
		return InForce{Policies: []Policy{{evil, evil, true}}, Queues: []string{evil}, Words: []string{evil}, Switches: []Switch{{evil, evil}}}
	}
	reg := prometheus.NewRegistry()
	for _, name := range []string{"refrakt_gate_queue_state", "refrakt_gate_decisions_total", "refrakt_gate_envoy_doubts_total", "refrakt_gate_build_info"} {
		vec := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: "Markup."}, []string{"queue", "state", "policy", "verdict", "reason", "about", "version"})
		reg.MustRegister(vec)
		vec.WithLabelValues(evil, "full", evil, evil, evil, evil, evil).Set(1)
	}
	s.Metrics, s.Doubts = reg, map[string]string{evil: evil}
	body := render(t, s)
	if n := strings.Count(body, "<script"); n != 1 || strings.Contains(body, "<img") || strings.Count(body, "</style") != 1 {
		t.Errorf("markup reached the page (%d scripts)", n)
	}
}

// TestSecurity: the policy of the page allows its own style and script, and nothing else.
func TestSecurity(t *testing.T) {
	t.Parallel()
	answer := httptest.NewRecorder()
	New(testSource(gauges{}), slog.New(slog.DiscardHandler)).ServeHTTP(answer, httptest.NewRequest("GET", "/", nil))
	inline := func(form string) string {
		parts := regexp.MustCompile(form).FindStringSubmatch(answer.Body.String())
		if parts == nil {
			t.Fatalf("nothing is like %s", form)
		}
		return hash(parts[1])
	}
	want := fmt.Sprintf("default-src 'none'; style-src %s; script-src %s; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		inline(`(?s)<style>(.*)</style>`), inline(`(?s)<script>(.*)</script>`))
	for name, want := range map[string]string{
		"Content-Security-Policy": want, "Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := answer.Header().Get(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if body := answer.Body.String(); strings.Contains(body, " style=") || strings.Contains(body, "http://") || strings.Contains(body, "https://") {
		t.Error("the page has a style attribute, or something from elsewhere")
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ got, want string }{
		{count(0), "0"}, {count(999), "999"}, {count(1000), "1,000"}, {count(1234567.89), "1,234,567.9"}, {count(-1234), "-1,234"}, {count(1e18), "1e+18"},
		{seconds(0), "0 s"}, {seconds(0.44), "0.4 s"}, {seconds(9.99), "10 s"}, {seconds(59.9), "59 s"}, {seconds(60), "1 min"}, {seconds(61), "1 min 1 s"},
		{seconds(3600), "1 h"}, {seconds(3661), "1 h 1 min"}, {seconds(86400 * 3.5), "3 d 12 h"}, {seconds(math.Inf(1)), "+Inf s"},
		{perMinute(0.25), "15"}, {yesNo(0) + yesNo(1), "noyes"},
		{clock(time.Unix(86399, 0), time.Unix(86399, 0)), "23:59:59 UTC"}, {clock(time.Unix(86399, 0), time.Unix(86400, 0)), "1970-01-01 23:59:59 UTC"},
		{clock(time.Unix(0, 0), time.Unix(365*86400, 0)), "1970-01-01 00:00:00 UTC"},
		{threshold(count)(0), "not checked"}, {threshold(seconds)(600), "of 10 min"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

// TestCharts: what is drawn stays in its frame, and gaps stay gaps.
func TestCharts(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for _, tt := range []struct {
		values []float64
		limit  float64
		want   line
	}{
		{[]float64{nan, nan}, 10, line{Limit: -1}},
		{[]float64{0, 0, 0}, 0, line{Path: "M0 47L120 47L240 47", Area: "M0 48L0 47L120 47L240 47L240 48Z", Limit: -1, Most: "0"}},
		{[]float64{5, nan, 20}, 10, line{Path: "M0 36h1M240 3h1", Area: "M0 48L0 36L0 48ZM240 48L240 3L240 48Z", Limit: 25, Most: "20"}},
	} {
		if got := newLine(tt.values, tt.limit, count); got != tt.want {
			t.Errorf("%v: got %+v, want %+v", tt.values, got, tt.want)
		}
	}
	for _, tt := range []struct {
		value, limit float64
		want         *gauge
	}{{nan, 40, nil}, {1, 0, nil}, {10, 40, &gauge{Width: 25}}, {40, 40, &gauge{100, true}}, {400, 40, &gauge{100, true}}} {
		if got := newGauge(tt.value, tt.limit); (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
			t.Errorf("%v of %v: got %v, want %v", tt.value, tt.limit, got, tt.want)
		}
	}
	var of [bars]counts
	of[0] = counts{allowed: 2, limited: 1, {"deny", "queue_full"}: 1}
	of[bars-1] = counts{{"allow", "rate_limited"}: 1, {"deny", "forbidden"}: 1}
	s := newStack(of)
	var kinds []string
	for _, p := range s.Parts {
		kinds = append(kinds, fmt.Sprint(p.Kind, " ", p.X, " ", p.Height))
		if p.Y < 0 || p.Y+p.Height > chartHeight+0.01 || p.X+p.Width > chartWidth {
			t.Errorf("%+v is out of the frame", p)
		}
	}
	if got, want := strings.Join(kinds, ", "), "allowed 0.5 23, k429 0.5 11.5, k503 0.5 11.5, passed 234.5 11.5, k403 234.5 11.5"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if s.Most != "4" || s.Words != "allowed: 2, let through: 1, 429: 1, 503: 1, 403: 1" {
		t.Errorf("got %q, %q", s.Most, s.Words)
	}
}

// TestMostRefused: of the policies without a chart, those that refuse the most are named.
func TestMostRefused(t *testing.T) {
	t.Parallel()
	m := metrics{read: map[string][]series{}}
	for policy, n := range map[string]float64{"a": 5, "b": 0, "c": 1200, "d": 7} {
		m.read["refrakt_gate_decisions_total"] = append(m.read["refrakt_gate_decisions_total"],
			series{of: labels{"policy": policy, "verdict": "deny", "reason": "rate_limited"}, value: n},
			series{of: labels{"policy": policy, "verdict": "deny", "reason": "queue_full"}, value: n},
			series{of: labels{"policy": policy, "verdict": "allow", "reason": "ok"}, value: 1e6 - n})
	}
	if got, want := mostRefused(m, named("a", "b", "c")), []refused{{"c", "2,400"}, {"a", "10"}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestColours: each part of a bar stands out from the ground (3:1), and from its neighbours without its hue.
func TestColours(t *testing.T) {
	t.Parallel()
	schemes := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(style, -1)
	if len(schemes) != 2 {
		t.Fatalf("%d schemes", len(schemes))
	}
	for _, scheme := range schemes {
		light := make(map[string]float64)
		for _, m := range regexp.MustCompile(`--(\w+): #([0-9a-f]+);`).FindAllStringSubmatch(scheme[1], -1) {
			light[m[1]] = luminance(t, m[2])
		}
		contrast := func(a, b string) float64 {
			return (max(light[a], light[b]) + 0.05) / (min(light[a], light[b]) + 0.05)
		}
		for _, kind := range []string{"allowed", "k429", "k503", "k403"} {
			if got := contrast(kind, "card"); light[kind] == 0 || got < 3 {
				t.Errorf("%s and the ground: %.1f", kind, got)
			}
		}
		for _, pair := range [][2]string{{"k429", "k503"}, {"k503", "k403"}} {
			if got := contrast(pair[0], pair[1]); got < 1.5 {
				t.Errorf("%v: %.1f", pair, got)
			}
		}
	}
	if !strings.Contains(style, ".passed { fill: url(#hatch);") || !strings.Contains(document, `<pattern id="hatch"`) {
		t.Error("what is let through is not hatched")
	}
}

// luminance is the relative luminance of a colour (WCAG 2).
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for i, weight := range []float64{0.0722, 0.7152, 0.2126} {
		c := float64(n>>(8*i)&0xff) / 255
		if c <= 0.04045 {
			sum += weight * c / 12.92
		} else {
			sum += weight * math.Pow((c+0.055)/1.055, 2.4)
		}
	}
	return sum
}

// TestManyPolicies: the page of a large file has the first policies and sums up the others.
func TestManyPolicies(t *testing.T) {
	t.Parallel()
	source := gateLike(1000, 0)
	body := render(t, source)
	if n := strings.Count(body, "<article"); n != maxTracks+1 || !strings.Contains(body, "988 other policies") {
		t.Errorf("%d policies have a chart", n)
	}
	if want := regexp.MustCompile(`most refusals since the start: (<span class="given">policy-with-a-long-name-\d+</span> 36(, )?){10}</p>`); !want.MatchString(body) {
		t.Error("policies without a chart are not named for what they refuse")
	}
	if len(body) > 600_000 {
		t.Errorf("the page has %d bytes", len(body))
	}
}

// counted counts how often it is asked.
type counted struct {
	prometheus.Gatherer
	times atomic.Int32
}

func (c *counted) Gather() ([]*dto.MetricFamily, error) {
	c.times.Add(1)
	return c.Gatherer.Gather()
}

// slow is a client that takes nothing until it may.
type slow struct {
	*httptest.ResponseRecorder
	begun, may chan struct{}
}

func (s slow) Write(b []byte) (int, error) {
	close(s.begun)
	<-s.may
	return s.ResponseRecorder.Write(b)
}

// TestShared: all who ask within a second get one page, whether or not others take theirs.
func TestShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		metrics := &counted{Gatherer: gauges{}}
		p := New(testSource(metrics), slog.New(slog.DiscardHandler))
		client := slow{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
		var asking sync.WaitGroup
		asking.Go(func() { p.ServeHTTP(client, httptest.NewRequest("GET", "/", nil)) })
		<-client.begun
		ask := func() string {
			answer := httptest.NewRecorder()
			p.ServeHTTP(answer, httptest.NewRequest("GET", "/", nil))
			return answer.Body.String()
		}
		var first string
		for range 20 {
			first = ask()
		}
		if got := metrics.times.Load(); got != 1 {
			t.Errorf("the page was made %d times, want once", got)
		}
		time.Sleep(sharedFor)
		if second := ask(); metrics.times.Load() != 2 || second == first {
			t.Error("the page stays as it was")
		}
		close(client.may)
		asking.Wait()
		if got := client.Body.String(); got != first {
			t.Errorf("a slow client got %.100q", got)
		}
	})
}

func BenchmarkPage(b *testing.B) {
	for _, of := range []struct{ policies, queues int }{{2, 1}, {1000, 1}, {1000, 100}} {
		b.Run(fmt.Sprint(of.policies, " policies, ", of.queues, " queues"), func(b *testing.B) {
			p := New(gateLike(of.policies, of.queues), nil)
			for range slots {
				p.tick(time.Now())
			}
			b.ReportAllocs()
			for b.Loop() {
				var out bytes.Buffer
				if err := p.write(&out, time.Now()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
