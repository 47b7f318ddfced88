package chaos

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// Fairness is what each caller got of a fleet of three gates on one Redis that all of them asked without end.
type Fairness struct {
	For      time.Duration
	Asked    int
	Least    float64 // part of capacity + rate·t that the caller got who got least
	Above    int     // by which a caller was above that in any span of time
	Deprived int     // denials of callers that had a token
	Failed   int     // requests with another answer than 200 or 429
}

const (
	shareCallers  = 20
	shareCapacity = 40
	sharePerSec   = 20
)

// request is one of a caller's. All that is known of the moment at which its token was asked for is that it is between.
type request struct {
	sent, done time.Time
	admitted   bool
}

// PlayFairness has every caller ask all three gates at once for so long.
func PlayFairness(tb testing.TB, d time.Duration) Fairness {
	tb.Helper()
	api := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	tb.Cleanup(api.Close)
	settings := map[string]string{
		"QUEUE_URL": redistest.Start(tb).URL(), "REDIS_TIMEOUT": patientTimeout,
		"RATE_LIMIT_ASSISTANT_BURST": fmt.Sprint(shareCapacity), "RATE_LIMIT_ASSISTANT_PER_MINUTE": fmt.Sprint(60 * sharePerSec),
	}
	var envoys []*e2e.Envoy
	for range 3 {
		envoys = append(envoys, e2e.StartEnvoy(tb, e2e.PatientConfig(tb), strings.TrimPrefix(api.URL, "http://"), e2e.StartGate(tb, settings).GRPC))
	}
	out := Fairness{For: d, Least: 1}
	ctx, cancel := context.WithTimeout(tb.Context(), d)
	defer cancel()
	var mu sync.Mutex
	callers := make([][]request, shareCallers)
	var asking sync.WaitGroup
	for i := range callers {
		address := fmt.Sprint("CF-Connecting-IP: 198.51.100.", i)
		for _, envoy := range envoys {
			asking.Go(func() {
				for ; ctx.Err() == nil; wait(ctx, 10*time.Millisecond) { // for more there are no processors
					q := request{sent: time.Now()}
					r, err := envoy.Ask(ctx, "/assistant", "", address)
					q.done, q.admitted = time.Now(), r.Status == http.StatusOK
					mu.Lock()
					if err != nil || !q.admitted && r.Status != http.StatusTooManyRequests {
						out.Failed++
					} else {
						callers[i] = append(callers[i], q)
					}
					mu.Unlock()
				}
			})
		}
	}
	asking.Wait()
	for _, requests := range callers {
		out.Asked += len(requests)
		out.judge(requests)
	}
	return out
}

// judge holds one caller's requests to a bucket that was full when it came.
func (s *Fairness) judge(requests []request) {
	var sent, done []time.Time // of those that were admitted
	first, last := requests[0].done, requests[0].sent
	for _, r := range requests {
		first = earlier(first, r.done)
		last = later(last, r.sent)
		if r.admitted {
			sent, done = append(sent, r.sent), append(done, r.done)
		}
	}
	slices.SortFunc(sent, time.Time.Compare)
	slices.SortFunc(done, time.Time.Compare)
	holds := func(d time.Duration) float64 { return shareCapacity + sharePerSec*d.Seconds() }

	// A span that begins before the i-th was sent and ends when the j-th is done has j - i + 1 takes or more in it, if
	// these are sorted apart: the i-th take is not before the i-th sent, and the j-th not after the j-th done.
	for i := range sent {
		for j := i; j < len(done); j++ {
			s.Above = max(s.Above, j-i+1-int(holds(done[j].Sub(sent[i]))))
		}
	}
	for _, r := range requests {
		if r.admitted {
			continue
		}
		if r.sent.After(first) && s.hadToken(r, append([]time.Time{first}, sent...), sent, done, holds) {
			s.Deprived++
		}
	}
	s.Least = min(s.Least, float64(len(sent))/holds(last.Sub(first)))
}

// hadToken says whether the bucket held a token for sure when a request was sent. At some time a bucket holds the least,
// over all spans that end then, of capacity + rate·t less what was taken in the span: what comes while it is full is lost.
func (s *Fairness) hadToken(r request, begins, sent, done []time.Time, holds func(time.Duration) float64) bool {
	taken, _ := slices.BinarySearchFunc(sent, r.done, time.Time.Compare) // at most, before the request was answered
	for _, begin := range begins {
		if begin.After(r.sent) {
			continue
		}
		before, _ := slices.BinarySearchFunc(done, begin, time.Time.Compare) // at least, before the span
		if holds(r.sent.Sub(begin))-float64(taken-before) < 1 {
			return false
		}
	}
	return true
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (s Fairness) seen() string {
	return fmt.Sprintf("of capacity + rate·t, who got least got %.2f %%, and nobody more than %d above it in any span of time; %d of %d requests were denied with a token there",
		100*s.Least, s.Above, s.Deprived, s.Asked)
}

func (s Fairness) wrong() (wrong []string) {
	if s.Failed > 0 {
		wrong = append(wrong, fmt.Sprintf("%d requests got another answer than 200 or 429", s.Failed))
	}
	if s.Above > 0 {
		wrong = append(wrong, fmt.Sprintf("a caller got %d requests more than its bucket holds", s.Above))
	}
	if s.Deprived > 0 {
		wrong = append(wrong, fmt.Sprintf("%d requests of callers with a token were denied", s.Deprived))
	}
	return wrong
}

// late lists the targets that were missed: on a machine that is too slow callers can't ask often enough.
func (s Fairness) late() (missed []string) {
	if s.Least < 0.999 {
		missed = append(missed, fmt.Sprintf("a caller got %.2f %% of what its bucket held, the target is 99.9 %%", 100*s.Least))
	}
	return missed
}
