package chaos

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// RetryAfter is what became of clients that a full queue sent away, and that came back when Retry-After told them to.
type RetryAfter struct {
	Clients, Back, Room int           // Room: of those that came back, who found it
	Longest             time.Duration // Retry-After
	Last                time.Duration // until the last was in
	Shortest            time.Duration // in which workers could have taken all
}

// PlayRetryAfter has so many clients come at once to three gates, before a queue that was filled past them and that workers
// drain by 20 jobs a second. All wait as Retry-After says.
func PlayRetryAfter(tb testing.TB, clients int) RetryAfter {
	tb.Helper()
	const limit, perSecond = 20, 20
	s := startFleet(tb, map[string]string{
		"QUEUE_MAX_PENDING": fmt.Sprint(limit), "QUEUE_RETRY_DELAY": "1s", "QUEUE_MAX_AGE_SECONDS": "0",
		// Jobs that are done within the window, on an empty queue, count as still to come until it is over.
		"QUEUE_ADMISSION_WINDOW": "500ms",
	})
	s.StartWorker(tb, perSecond/5) // of 0.2 s each
	// Each gate learns which part of the admissions is its own.
	for i := range 60 {
		polltest.Until(tb, time.Minute, "a run to be accepted", func() error {
			if !start(tb, s.Envoys[i%3], `{"seconds": 0}`) {
				return errors.New("it is not")
			}
			return nil
		})
	}
	const before = 8 * perSecond
	s.Enqueue(tb, e2e.Jobs{Count: before, Seconds: 0.2})
	polltest.Until(tb, time.Minute, "workers to have taken some for a while", func() error {
		if n := s.Client.LLen(tb.Context(), queued).Val(); n > before*2/3 {
			return fmt.Errorf("%d jobs wait", n)
		}
		return nil
	})

	out := RetryAfter{Clients: clients}
	out.Shortest = time.Duration(int(s.Client.LLen(tb.Context(), queued).Val())-limit+clients) * time.Second / perSecond
	begin := time.Now()
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			address := fmt.Sprintf("CF-Connecting-IP: 100.64.%d.%d", i>>8, i&255)
			for asked := 0; ; asked++ {
				r, err := s.Envoys[(i+asked)%3].Ask(tb.Context(), "/run", `{"seconds": 0.2}`, address)
				var retryAfter time.Duration
				if err == nil && r.Status != http.StatusAccepted {
					retryAfter, err = r.Wait()
				}
				if err != nil {
					tb.Errorf("client %d: %v", i, err)
					return
				}
				mu.Lock()
				out.Longest = max(out.Longest, retryAfter)
				if asked > 0 {
					out.Back++
				}
				if retryAfter == 0 {
					out.Last = time.Since(begin)
					if asked > 0 {
						out.Room++
					}
				}
				mu.Unlock()
				if retryAfter == 0 {
					return
				}
				wait(tb.Context(), retryAfter)
			}
		})
	}
	all.Wait()
	return out
}

func (t RetryAfter) seen() string {
	return fmt.Sprintf("%d of %d clients that came back found room; the last of %d was in after %v, where workers need %v for all; the longest Retry-After was %v",
		t.Room, t.Back, t.Clients, round(t.Last), t.Shortest, t.Longest)
}

func (t RetryAfter) wrong() (wrong []string) {
	if t.Back == 0 {
		wrong = append(wrong, "nobody was sent away")
	}
	return wrong
}

// late lists the targets that were missed. `make test` holds them too: clients are told a time with a margin, so a busy
// machine changes little.
func (t RetryAfter) late() (missed []string) {
	if t.Room < t.Back*9/10 {
		missed = append(missed, fmt.Sprintf("%d of %d clients that came back after Retry-After found room, the target is nine of ten", t.Room, t.Back))
	}
	// Half of the places are for clients that come for the first time.
	if most := 3*t.Shortest + 5*time.Second; t.Last > most {
		missed = append(missed, fmt.Sprintf("the last got in after %v, the target is %v", round(t.Last), most))
	}
	return missed
}
