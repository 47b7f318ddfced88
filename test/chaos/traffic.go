package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The callers. Each has an address and a user of its own, and asks again pause after an answer.
const (
	runners = 10 // premium, on /run: the queue is what stops them
	premium = 10 // on /assistant: nothing may stop them
	plain   = 30 // on /assistant: their buckets do
	pause   = 200 * time.Millisecond
)

// caller is one of them and what became of its requests.
type caller struct {
	addr, tier, path, body string

	passed   atomic.Int64 // let through by the gate, whatever the API said
	stopped  atomic.Int64 // by 429, or a 503 of the gate
	replaced atomic.Int64 // no answer of the gate: Envoy's in its place
	refused  atomic.Int64 // no answer at all
}

// traffic is 50 callers.
type traffic struct {
	callers []*caller
	began   time.Time
	stop    context.CancelFunc
	done    sync.WaitGroup
}

var addresses atomic.Uint32

// start begins traffic of callers that nobody has seen yet. It ends with end, or with the test.
func (w *World) start(tb testing.TB) *traffic {
	tb.Helper()
	ctx, stop := context.WithCancel(tb.Context())
	tr := &traffic{began: time.Now(), stop: stop}
	tb.Cleanup(tr.end)
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	for i := range runners + premium + plain {
		n := addresses.Add(1)
		c := &caller{addr: fmt.Sprintf("100.%d.%d.%d", 64+n>>16, n>>8&255, n&255), path: "/assistant"}
		if i < runners {
			c.path, c.body = "/run", `{"seconds": 0.1}`
		}
		if i < runners+premium {
			c.tier = "premium"
		}
		tr.callers = append(tr.callers, c)
		tr.done.Go(func() {
			// Not all at the same moment.
			for wait(ctx, pause*time.Duration(i)/(runners+premium+plain)); ctx.Err() == nil; wait(ctx, pause) {
				c.ask(ctx, client, w.target.Load().(string))
			}
		})
	}
	return tr
}

func (c *caller) ask(ctx context.Context, client *http.Client, envoy string) {
	// A request that was begun is also ended, so that each is counted.
	ctx = context.WithoutCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+envoy+c.path, strings.NewReader(c.body))
	if err != nil {
		panic(err) // a mistake in this file
	}
	req.Header.Set("CF-Connecting-IP", c.addr)
	req.Header.Set("X-User-ID", "user of "+c.addr)
	if c.tier != "" {
		req.Header.Set("X-RateLimit-Tier", c.tier)
	}
	if c.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		c.refused.Add(1)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	switch {
	case resp.Header.Get("X-Envoy-Ratelimited") != "": // on every denial of the gate
		c.stopped.Add(1)
	case resp.StatusCode == http.StatusServiceUnavailable && len(body) == 0: // Envoy's, in place of the gate
		c.replaced.Add(1)
	default:
		c.passed.Add(1)
	}
}

// end stops the callers and waits for their last answers.
func (tr *traffic) end() {
	tr.stop()
	tr.done.Wait()
}

// over is by how many requests plain callers got more than so many full buckets and the refill of the time, the worst
// of them; 0 if none did.
func (tr *traffic) over(buckets int) int {
	most := int64(float64(buckets) * (burst + perMinute*time.Since(tr.began).Minutes()))
	worst := int64(0)
	for _, c := range tr.callers {
		if c.tier == "" {
			worst = max(worst, c.passed.Load()-most)
		}
	}
	return int(worst)
}

// wronglyStopped counts the denials of those that nothing may stop.
func (tr *traffic) wronglyStopped() (n int) {
	for _, c := range tr.callers {
		if c.tier != "" && c.path != "/run" {
			n += int(c.stopped.Load())
		}
	}
	return n
}

// unanswered counts the requests that no gate decided.
func (tr *traffic) unanswered() (n int) {
	for _, c := range tr.callers {
		n += int(c.refused.Load() + c.replaced.Load())
	}
	return n
}

func (tr *traffic) answers() (n int) {
	for _, c := range tr.callers {
		n += int(c.passed.Load() + c.stopped.Load() + c.replaced.Load() + c.refused.Load())
	}
	return n
}

// answer is a line of Envoy's access log.
type answer struct {
	Time    time.Time `json:"time"` // when the request came
	Code    int       `json:"code"`
	Details string    `json:"details"`
	Reason  string    `json:"reason"`
	Verdict string    `json:"verdict"`
	Micros  string    `json:"gate_us"` // how long the gate took; "" where it did not answer
}

// check is how long Envoy waited for the gate.
func (a answer) check() time.Duration {
	d, err := time.ParseDuration(a.Micros + "us")
	if err != nil {
		return 0
	}
	return d
}

// unanswered is the kind of an answer that Envoy gives because the gate gave none.
const unanswered = "503 in place of the gate"

// ofAPI is the kind of an answer with this code where it is not the gate that denies.
func ofAPI(code int) string { return fmt.Sprint(code, " of the API") }

// kind says in short who answered what.
func (a answer) kind() string {
	switch {
	case a.Details == "ext_authz_error":
		return unanswered
	case a.Verdict == "deny":
		return fmt.Sprint(a.Code, " ", a.Reason)
	case a.Code >= http.StatusInternalServerError:
		return ofAPI(a.Code)
	default:
		return fmt.Sprint(a.Code)
	}
}

// logged are the guarded requests that came from begin to end, by the logs of all Envoys.
func (w *World) logged(begin, end time.Time) (found []answer) {
	for _, e := range w.envoys {
		for line := range strings.Lines(e.Log()) {
			var a answer
			if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &a) != nil {
				continue
			}
			if !a.Time.Before(begin.Truncate(time.Millisecond)) && a.Time.Before(end) {
				found = append(found, a)
			}
		}
	}
	return found
}

// percentile is the smallest of all that at least this part is not above.
func percentile(all []time.Duration, part float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(part*float64(len(sorted))))]
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
