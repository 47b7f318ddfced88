package page

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

func TestMain(m *testing.M) {
	code := e2e.Main(m)
	EndBrowser()
	os.Exit(code)
}

// addressOf is that of a gate's page.
func addressOf(g *e2e.Gate) string { return "http://" + g.Telemetry + "/" }

// shown are the series that the page of a gate with one queue has, if it was asked about /run and /assistant.
var shown = []string{
	"process_start_time_seconds", "refrakt_queue_pending_jobs", "refrakt_queue_running_jobs", "refrakt_queue_oldest_pending_seconds",
	`refrakt_gate_queue_state{state="ok"}`, "refrakt_gate_queue_limit_pending_jobs", "refrakt_gate_queue_limit_age_seconds",
	"refrakt_gate_queue_live_workers", "refrakt_gate_queue_drain_jobs_per_second", "refrakt_gate_queue_sample_age_seconds",
	`refrakt_gate_shadow_active{check="limit",policy="run"}`, `refrakt_gate_shadow_active{check="queue",policy="assistant"}`,
	`refrakt_gate_decisions_total{policy="run",reason="ok",verdict="allow"}`,
	`refrakt_gate_decisions_total{policy="run",reason="rate_limited",verdict="deny"}`,
	`refrakt_gate_decisions_total{policy="assistant",reason="ok",verdict="allow"}`,
	`refrakt_gate_envoy_doubts_total{about="client_ip_header"}`,
}

// names is what the numbers of a queue are called.
var names = map[string][]string{
	"Jobs that wait":    {"refrakt_queue_pending_jobs", "refrakt_gate_queue_limit_pending_jobs"},
	"Age of the oldest": {"refrakt_queue_oldest_pending_seconds", "refrakt_gate_queue_limit_age_seconds"},
	"Leave per minute":  {"refrakt_gate_queue_drain_jobs_per_second"},
	"Live workers":      {"refrakt_gate_queue_live_workers"},
	"Running jobs":      {"refrakt_queue_running_jobs"},
	"Age of the sample": {"refrakt_gate_queue_sample_age_seconds"},
}

// TestPageShowsMetrics: what a person sees is what a scrape has, and what the browser loads is the page alone.
func TestPageShowsMetrics(t *testing.T) {
	t.Parallel()
	s := e2e.Start(t, e2e.Options{Settings: map[string]string{"RATE_LIMIT_RUN_BURST": "2", "RATE_LIMIT_RUN_PER_MINUTE": "1"}})
	gate := s.Gates[0]
	caller := e2e.Caller(t)
	for _, want := range []int{http.StatusAccepted, http.StatusAccepted, http.StatusTooManyRequests} {
		if r := s.Post(t, "/run", caller); r.Status != want {
			t.Fatalf("got %d, want %d", r.Status, want)
		}
	}
	s.Post(t, "/assistant", "CF-Connecting-IP: not an address")
	address := addressOf(gate)
	tab := Open(t, address, 1100, 900)
	var seen Seen
	polltest.Until(t, 20*time.Second, "the page between two scrapes that agree", func() error {
		before := gate.Metrics(t)
		if before["refrakt_queue_pending_jobs"] != 2 {
			return errors.New("the jobs are not seen yet")
		}
		tab.Refresh(t)
		seen = tab.Look(t)
		after := gate.Metrics(t)
		for _, n := range seen.Numbers {
			was, known := before[n.Series]
			is := after[n.Series]
			value, err := strconv.ParseFloat(n.Value, 64)
			switch {
			case !known || err != nil:
				return fmt.Errorf("%+v is no series", n)
			case n.Series == "refrakt_gate_queue_sample_age_seconds": // it moves all the time
				if value < 0 || value > 5 {
					return fmt.Errorf("the sample has an age of %v s", value)
				}
			case !same(was, is):
				return fmt.Errorf("%s changes", n.Series)
			case !same(was, value):
				return fmt.Errorf("%s is %v, the page says %v", n.Series, was, value)
			}
		}
		return nil
	})
	var series []string
	for _, n := range seen.Numbers {
		series = append(series, n.Series)
		if want := text(t, n); want != "" && n.Text != want {
			t.Errorf("%s is %s, and the page shows %q, want %q", n.Series, n.Value, n.Text, want)
		}
	}
	for _, want := range shown {
		if !slices.Contains(series, want) {
			t.Errorf("the page does not have %s", want)
		}
	}
	for name, want := range names {
		if !slices.Equal(seen.Names[name], want) {
			t.Errorf("%s shows %v, want %v", name, seen.Names[name], want)
		}
	}
	// The gate is younger than 10 minutes, so all that it has decided is of the last minutes.
	want := map[string][]string{"run": {"allowed ok | 2 | 2", "429 rate_limited | 1 | 1"}, "assistant": {"allowed ok | 1 | 1"}}
	if !maps.EqualFunc(seen.Rows, want, slices.Equal[[]string]) {
		t.Errorf("the page shows the decisions %v, want %v", seen.Rows, want)
	}
	if !slices.Equal(seen.Headlines, []string{noWorker}) || len(seen.Troubles) > 0 || seen.Lost != "" || seen.Old {
		t.Errorf("the page says %q, %q, %q", seen.Headlines, seen.Troubles, seen.Lost)
	}
	tab.Clean(t, address)
}

func same(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }

// text is how a number has to look; empty: in a way that is not checked here.
func text(t *testing.T, n Number) string {
	t.Helper()
	value, err := strconv.ParseFloat(n.Value, 64)
	if err != nil {
		t.Fatal(err)
	}
	plain := strconv.FormatFloat(value, 'f', -1, 64)
	name, _, _ := strings.Cut(n.Series, "{")
	switch {
	case math.IsNaN(value):
		return "unknown"
	case name == "refrakt_gate_queue_limit_pending_jobs":
		return "of " + plain
	case name == "refrakt_gate_queue_limit_age_seconds":
		return fmt.Sprintf("of %v min", value/60)
	case name == "refrakt_gate_shadow_active":
		return map[float64]string{0: "enforced", 1: "shadow mode"}[value]
	case name == "refrakt_gate_queue_drain_jobs_per_second":
		return strconv.FormatFloat(math.Round(value*600)/10, 'f', -1, 64)
	case strings.HasSuffix(name, "_jobs") || strings.HasSuffix(name, "_total") || strings.HasSuffix(name, "_workers"):
		return plain
	}
	return ""
}

// markup is what must reach the page as text or not at all.
const markup = `<marquee>x</marquee><script>document.title="evil"</script>`

// TestMarkup: nothing that a client sends reaches the page, and what operators name is text.
func TestMarkup(t *testing.T) {
	t.Parallel()
	const name = `<marquee>"&'queue</marquee>`
	file := filepath.Join(t.TempDir(), "<marquee>.yaml")
	put(t, file, fmt.Sprintf("queues:\n  %s: {max_pending: 5}\npolicies:\n  run: {match: [/run], queue: %s, buckets: [{per: ip, burst: 50, rate: 50/m}]}\n", strconv.Quote(name), strconv.Quote(name)))
	config, err := os.ReadFile(filepath.Join(e2e.Root(), e2e.ShippedConfig))
	if err != nil {
		t.Fatal(err)
	}
	const named = "{policy: assistant}"
	if !strings.Contains(string(config), named) {
		t.Fatalf("%s has no %s", e2e.ShippedConfig, named)
	}
	envoy := filepath.Join(t.TempDir(), "envoy.yaml")
	put(t, envoy, strings.ReplaceAll(string(config), named, "{policy: '<marquee>'}"))
	s := e2e.Start(t, e2e.Options{Config: envoy, Settings: map[string]string{"POLICY_FILE": file, "CLIENT_IP_HEADER": "CF-Connecting-IP"}})
	for _, path := range []string{"/run", "/assistant", "/run?user_id=" + strings.ReplaceAll(markup, " ", "+"), "/run;" + markup} {
		s.Raw(t, "POST "+path+" HTTP/1.1", "X-User-ID: "+markup, "CF-Connecting-IP: "+markup, "X-RateLimit-Tier: "+markup, "User-Agent: "+markup, "X-Forwarded-For: "+markup)
	}
	address := addressOf(s.Gates[0])
	tab := Open(t, address, 1100, 900)
	elements := Ask[int](t, tab, `document.querySelectorAll("marquee, main script, img, iframe, object, embed, form").length`)
	title := Ask[string](t, tab, `document.title`)
	seen := tab.Look(t)
	if elements != 0 || title == "evil" {
		t.Errorf("%d elements are not the page's own, and its title is %q", elements, title)
	}
	if !slices.Equal(seen.Queues, []string{name}) {
		t.Errorf("the queues are %q, want %q", seen.Queues, name)
	}
	if !strings.Contains(seen.Text, file) || !strings.Contains(seen.Text, "run: /run; queue "+name) {
		t.Errorf("POLICY_FILE or its words are not on the page:\n%s", seen.Text)
	}
	if strings.Contains(seen.Text, "evil") || !slices.Contains(seen.Rows["unknown"], "503 unknown_policy | 1 | 1") {
		t.Errorf("the page shows what a client sent, or not what Envoy's route did:\n%s", seen.Text)
	}
	tab.Clean(t, address)
}

func put(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// TestLayout: the page fits a phone, whatever names there are, and has two sets of colours.
func TestLayout(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), strings.Repeat("long", 50)+".yaml")
	policies := ""
	for i := range 20 {
		policies += fmt.Sprintf("  %s%d: {match: [/%s/%d], buckets: [{per: ip, burst: 50, rate: 50/m}], shadow: true}\n", strings.Repeat("long", 15), i, strings.Repeat("long", 60), i)
	}
	put(t, file, "policies:\n"+policies)
	gate := e2e.StartGate(t, map[string]string{"POLICY_FILE": file})
	address := addressOf(gate)
	tab := Open(t, address, 360, 640)
	width, height := Ask[float64](t, tab, `document.documentElement.scrollWidth`), Ask[float64](t, tab, `document.documentElement.scrollHeight`)
	if width > 360 || height < 640 {
		t.Errorf("the page has %v × %v pixels, and the phone is 360 wide", width, height)
	}
	colours := make(map[string]string)
	for _, scheme := range []string{"light", "dark"} {
		tab.Do(t, prefer(scheme))
		colours[Ask[string](t, tab, `getComputedStyle(document.body).backgroundColor + getComputedStyle(document.body).color`)] = scheme
	}
	if len(colours) != 2 {
		t.Errorf("light and dark look the same: %v", colours)
	}
	tab.Clean(t, address)
}

// TestRefresh: the page refreshes itself, says so when the gate is gone, and recovers. It keeps what a person has opened,
// and needs no navigation.
func TestRefresh(t *testing.T) {
	t.Parallel()
	settings := map[string]string{"PROMETHEUS_BEARER_TOKEN": "s3cret"}
	gate := e2e.StartGate(t, settings)
	settings["TELEMETRY_ADDR"] = gate.Telemetry
	tab := Open(t, "http://anybody:s3cret@"+gate.Telemetry+"/", 1100, 400)
	Ask[bool](t, tab, `document.getElementById("policies").open = false`)
	scrolled := Ask[float64](t, tab, `scrollTo(0, 50), scrollY`)
	before := tab.Navigations()
	recent := func() string { return strings.Join(tab.Look(t).Rows["run"], ", ") }
	if got := recent(); got != "" {
		t.Errorf("the page shows %q of a new gate", got)
	}
	code, out := e2e.RunGate(t, map[string]string{"GRPC_ADDR": gate.GRPC}, "check", "--path", "/run", "--ip", "203.0.113.9")
	if code != 0 {
		t.Fatalf("check: %d %s", code, out)
	}
	polltest.True(t, "the page to refresh itself", func() bool { return recent() == "allowed ok | 1 | 1" })
	if seen := tab.Look(t); seen.Lost != "" || seen.Old {
		t.Errorf("the page says %q", seen.Lost)
	}

	gate.Kill(t)
	tab.Refresh(t)
	seen := tab.Look(t)
	if !strings.HasPrefix(seen.Lost, "No answer since ") || !strings.HasSuffix(seen.Lost, ": what is below is old.") || !seen.Old {
		t.Errorf("without a gate the page says %q, and is dimmed: %v", seen.Lost, seen.Old)
	}
	if got := recent(); got != "allowed ok | 1 | 1" {
		t.Errorf("what was there is now %q", got)
	}
	gate = e2e.StartGate(t, settings)
	tab.Refresh(t)
	if seen := tab.Look(t); seen.Lost != "" || seen.Old || len(seen.Rows["run"]) != 0 {
		t.Errorf("with the gate back the page says %q, is dimmed: %v, and shows %v", seen.Lost, seen.Old, seen.Rows)
	}

	gate.Kill(t)
	settings["PROMETHEUS_BEARER_TOKEN"] = "another"
	e2e.StartGate(t, settings)
	tab.Refresh(t)
	if seen := tab.Look(t); !strings.HasPrefix(seen.Lost, "The token is not accepted any more (401): reload the page. No answer since ") {
		t.Errorf("with another token the page says %q", seen.Lost)
	}
	if now := Ask[float64](t, tab, `scrollY`); scrolled == 0 || now != scrolled {
		t.Errorf("the page was scrolled by %v, and is now by %v", scrolled, now)
	}
	if open := Ask[bool](t, tab, `document.getElementById("policies").open`); open || tab.Navigations() != before {
		t.Errorf("what was closed is open: %v; there were %d navigations, want %d", open, tab.Navigations(), before)
	}
}
