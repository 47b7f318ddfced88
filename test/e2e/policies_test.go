package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// strangers is an API with three routes, two queues and three tiers.
const strangers = `
tiers: {pro: 2, batch: 5}
queues:
  images: {max_pending: 3, reserve: {tiers: [batch], share: 0.3}}
  videos: {max_pending: 8, fair_share: 1}
policies:
  chat:
    match: ["POST /v1/chat"]
    buckets: [{per: ip, burst: 3, rate: 1/h}, {per: all, burst: 100, rate: 1/h, tiered: false, name: total}]
  images: {match: ["POST /v1/images/{model}"], queue: images, becomes_job: true}
  videos: {match: [/v1/videos/], queue: videos, becomes_job: true, buckets: [{per: ip, burst: 100, rate: 1/h}]}
callers:
- {ip: 192.0.2.0/28, then: exempt}
- {ip: 192.0.2.13, then: deny}
- {ip: 192.0.2.32/28, then: {tier: batch}}
`

// writePolicies writes a policy file as a careful operator does: whole or not at all.
func writePolicies(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		tb.Fatal(err)
	}
}

func comingFrom(address string, more ...string) []string {
	return append([]string{"CF-Connecting-IP: " + address}, more...)
}

// TestStrangersAPI: an API that the gate was not made for is guarded with nothing but a policy file and one route of
// Envoy.
func TestStrangersAPI(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	file := filepath.Join(t.TempDir(), "policies.yaml")
	writePolicies(t, file, strangers)
	api := e2e.StartStrangersAPI(t, redis.URL(), map[string]string{"/v1/images": "images", "/v1/videos": "videos"})
	gate := e2e.StartGate(t, map[string]string{"POLICY_FILE": file, "QUEUE_URL": redis.URL()})
	envoy := e2e.StartEnvoy(t, e2e.AllPathsConfig(t), api.Addr, gate.GRPC)
	post := func(want int, reason, path string, headers ...string) e2e.Response {
		t.Helper()
		r := envoy.Post(t, path, headers...)
		if r.Status != want {
			t.Errorf("%s %s: got %d %s, want %d", path, headers, r.Status, r.Body, want)
		}
		if !strings.Contains(r.Body, reason) {
			t.Errorf("%s %s: got %s, want %q", path, headers, r.Body, reason)
		}
		return r
	}

	// The limits of the tiers.
	for i, tier := range []string{"", "pro", "Batch"} {
		headers := comingFrom(fmt.Sprint("198.51.100.", i+1), "X-RateLimit-Tier: "+tier)
		burst := []int{3, 6, 15}[i]
		for range burst {
			post(http.StatusOK, `"served"`, "/v1/chat", headers...)
		}
		r := post(http.StatusTooManyRequests, "Too Many Requests", "/v1/chat/", headers...)
		if got, want := r.Header.Get("RateLimit-Policy"), fmt.Sprintf(`"chat";q=%d;w=`, burst); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, `, "total";q=100;w=360000`) {
			t.Errorf("tier %q: RateLimit-Policy %s, want %s…", tier, got, want)
		}
	}
	for range 20 {
		post(http.StatusOK, `"served"`, "/v1/chat", comingFrom("192.0.2.1")...) // exempt
	}
	post(http.StatusForbidden, `{"detail":"Forbidden"}`, "/v1/chat", comingFrom("192.0.2.13")...)
	if r := envoy.Get(t, "/v1/chat", comingFrom("192.0.2.13")...); r.Status != http.StatusOK {
		t.Errorf("GET, which no policy is for: %d", r.Status)
	}

	// One queue fills, the other does not notice. The last of the three places is for the tier batch.
	for range 2 {
		post(http.StatusAccepted, `"job"`, "/v1/images/small", comingFrom("198.51.100.7")...)
	}
	full := post(http.StatusServiceUnavailable, "queue is full", "/v1/images/large", comingFrom("192.0.2.1")...)
	if full.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	post(http.StatusAccepted, `"job"`, "/v1/images/small", comingFrom("192.0.2.33")...)
	post(http.StatusServiceUnavailable, "queue is full", "/v1/images/small", comingFrom("192.0.2.33")...)

	// Alone, a caller gets half of the places, and leaves room for others.
	for range 4 {
		post(http.StatusAccepted, `"job"`, "/v1/videos/cut", comingFrom("198.51.100.7")...)
	}
	post(http.StatusTooManyRequests, "Too many of your jobs", "/v1/videos/cut", comingFrom("198.51.100.7")...)
	post(http.StatusAccepted, `"job"`, "/v1/videos/cut", comingFrom("198.51.100.8")...)

	polltest.Until(t, 20*time.Second, "the gauges of both queues", func() error {
		m := gate.Metrics(t)
		for series, want := range map[string]float64{
			`refrakt_queue_pending_jobs{queue="images"}`: 3, `refrakt_queue_pending_jobs{queue="videos"}`: 5,
			`refrakt_gate_queue_limit_pending_jobs{queue="images"}`: 2, `refrakt_gate_queue_state{queue="images",state="full"}`: 1,
			`refrakt_job_enqueued_total{queue="videos",source="unknown"}`:                       5,
			`refrakt_gate_queue_largest_share_jobs{queue="videos"}`:                             4,
			`refrakt_gate_decisions_total{policy="chat",reason="exempt",verdict="allow"}`:       20,
			`refrakt_gate_decisions_total{policy="chat",reason="forbidden",verdict="deny"}`:     1,
			`refrakt_gate_decisions_total{policy="videos",reason="queue_share",verdict="deny"}`: 1,
			`refrakt_gate_policy_reload_successful`:                                             1,
		} {
			if got := m[series]; got != want {
				return fmt.Errorf("%s is %v, want %v", series, got, want)
			}
		}
		return nil
	})
	if n := envoy.Stat(t, "http.ingress.ext_authz.gate.error"); n != "0" {
		t.Errorf("%s Checks ended with an error", n)
	}
}

// TestExamplePolicies plays each example file: every policy gives the burst of its buckets and then 429 that names the
// empty one, and refuses while its queue is full.
func TestExamplePolicies(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(e2e.Root(), "examples/policies/*.yaml"))
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			file, mistakes := policy.Read(path)
			for _, m := range mistakes {
				t.Fatal(m)
			}
			redis := redistest.Start(t)
			api := e2e.StartStrangersAPI(t, redis.URL(), nil)
			gate := e2e.StartGate(t, map[string]string{"POLICY_FILE": path, "QUEUE_URL": redis.URL(), "USER_ID_SOURCES": "jwt,header", "QUEUE_SAMPLE_INTERVAL": "100ms"})
			envoy := e2e.StartEnvoy(t, e2e.AllPathsConfig(t), api.Addr, gate.GRPC)
			for i, p := range file.Policies {
				method, target, found := strings.Cut(p.Match[0], " ")
				if !found {
					method, target = http.MethodPost, p.Match[0]
				}
				ask := func() e2e.Response {
					return envoy.Raw(t, method+" "+target+" HTTP/1.1", comingFrom(fmt.Sprint("198.51.100.", 10+i))...)
				}
				least := int64(1 << 60)
				for _, b := range p.Buckets {
					if b.Per != policy.PerUser {
						least = min(least, b.Burst)
					}
				}
				for n := range least {
					if r := ask(); r.Status != http.StatusOK {
						t.Fatalf("%s: request %d of %d: %d %s", p.Name, n+1, least, r.Status, r.Body)
					}
				}
				r := ask()
				for n := int64(0); n < least && r.Status == http.StatusOK; n++ { // tokens that came meanwhile
					r = ask()
				}
				if r.Status != http.StatusTooManyRequests || r.RetryAfter(t) == 0 {
					t.Errorf("%s: after %d requests: %d %s", p.Name, least, r.Status, r.Body)
				}
			}
			for _, q := range file.Queues {
				for n := range q.MaxPending {
					if err := redis.Client(t).RPush(t.Context(), "saq:"+q.Name+":queued", fmt.Sprint(n)).Err(); err != nil {
						t.Fatal(err)
					}
				}
			}
			for i, p := range file.Policies {
				if p.Queue == "" {
					continue
				}
				method, target, found := strings.Cut(p.Match[0], " ")
				if !found {
					method, target = http.MethodPost, p.Match[0]
				}
				polltest.Until(t, 20*time.Second, p.Name+" to be refused", func() error {
					if r := envoy.Raw(t, method+" "+target+" HTTP/1.1", comingFrom(fmt.Sprint("203.0.113.", 10+i))...); r.Status != http.StatusServiceUnavailable {
						return fmt.Errorf("got %d %s", r.Status, r.Body)
					}
					return nil
				})
			}
		})
	}
}

// reloads is how often TestReloadsUnderTraffic changes the file.
const reloads = 1000

// version is a policy file whose number a client sees in the headers. Every other one has a queue of its own.
func version(n int) string {
	// Both states of the queue, in which 50 jobs wait, let all requests pass; half of one and half of the other do not.
	queue, policies, jobs := "", "", "{max_pending: 100}"
	if n%2 == 1 {
		jobs = "{max_pending: 10, shadow: true}"
		queue = fmt.Sprintf("  extra%d: {max_pending: 10}\n", n%4)
		policies = fmt.Sprintf("  extra%d: {match: [/extra], queue: extra%d, becomes_job: true}\n", n, n%4)
	}
	return fmt.Sprintf(`
queues:
  jobs: %s
%spolicies:
  seen: {match: [/seen], queue: jobs, buckets: [{per: ip, burst: %d, rate: 100/s}]}
  shut: {match: [/shut], buckets: [{per: ip, burst: %d, rate: 100/s}]}
%scallers:
- {ip: 192.0.2.66, then: deny}
`, jobs, queue, 100_000+n, 100_000+n, policies)
}

// TestReloadsUnderTraffic: a thousand changes of the file while requests come. No request is decided by a state older
// than one that was seen before, none by a mixture, none fails, and the gate does not grow.
func TestReloadsUnderTraffic(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	file := filepath.Join(t.TempDir(), "policies.yaml")
	writePolicies(t, file, version(0))
	api := e2e.StartStrangersAPI(t, redis.URL(), nil)
	for n := range 50 {
		if err := redis.Client(t).RPush(t.Context(), "saq:jobs:queued", fmt.Sprint(n)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	gate := e2e.StartGate(t, map[string]string{"POLICY_FILE": file, "QUEUE_URL": redis.URL()})
	envoy := e2e.StartEnvoy(t, e2e.AllPathsConfig(t), api.Addr, gate.GRPC)

	traffic := e2e.NewReloadTraffic(envoy)
	defer traffic.Stop()
	change := func(n int) {
		writePolicies(t, file, version(n))
		gate.Signal(t, syscall.SIGHUP)
		polltest.Until(t, 20*time.Second, fmt.Sprintf("version %d", n), func() error {
			if got := traffic.Seen(); got != int64(100_000+n) {
				return fmt.Errorf("version %d is in force", got-100_000)
			}
			return nil
		})
	}
	for n := range 50 {
		change(n + 1)
	}
	before := gate.Metrics(t)
	for n := 50; n < reloads; n++ {
		change(n + 1)
	}
	for _, err := range traffic.Stop() {
		t.Error(err)
	}
	polltest.Until(t, 20*time.Second, "the gate to be as large as before", func() error {
		after := gate.Metrics(t)
		for series, most := range map[string]float64{"go_goroutines": 5, "process_open_fds": 5} {
			if grown := after[series] - before[series]; grown > most {
				return fmt.Errorf("%s has grown by %v", series, grown)
			}
		}
		// Every other version has a queue: 50 and 1,000 have none.
		if len(after) > len(before)+5 {
			return fmt.Errorf("%d series, before %d", len(after), len(before))
		}
		return nil
	})
	if n := envoy.Stat(t, "http.ingress.ext_authz.gate.error"); n != "0" {
		t.Errorf("%s Checks ended with an error", n)
	}
	m := gate.Metrics(t)
	t.Logf("%d requests, %d changes", traffic.Requests(), reloads)
	if m["refrakt_gate_policy_reload_successful"] != 1 {
		t.Error("the last reload is not successful")
	}
}
