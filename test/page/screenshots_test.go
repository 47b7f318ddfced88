//go:build screenshots

package page

import (
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

var (
	into = flag.String("into", "", "the folder for the pictures")
	last = flag.Duration("for", 10*time.Minute, "for how long requests come before")
)

// TestScreenshots takes the pictures of docs/page.md: of real gates, after minutes of requests.
func TestScreenshots(t *testing.T) {
	for name, gate := range map[string]struct {
		perSecond float64 // requests to /run
		breaks    bool    // Redis is killed when most of the time is over
		fills     bool    // at the end, jobs come past the gate
		want      string
		pictures  []picture
	}{
		"healthy":  {perSecond: 0.9, want: "Healthy", pictures: []picture{{"healthy", "light", 1100}, {"phone", "dark", 390}}},
		"full":     {perSecond: 1.8, fills: true, want: "The queue is full: new jobs get 503", pictures: []picture{{"full", "light", 1100}}},
		"degraded": {perSecond: 0.9, breaks: true, want: "Degraded: 3 things do not work as they should", pictures: []picture{{"degraded", "light", 1100}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startStack(t)
			send(t, s, gate.perSecond, *last*7/10)
			if gate.breaks {
				s.Redis.Kill()
			}
			send(t, s, gate.perSecond, *last*3/10)
			if gate.fills {
				s.Enqueue(t, e2e.Jobs{Count: 40, Seconds: 4})
			}
			for _, p := range gate.pictures {
				tab := Open(t, addressOf(s.Gates[0]), p.width, 800)
				tab.Do(t, prefer(p.scheme))
				polltest.Until(t, 20*time.Second, gate.want, func() error {
					if got := tab.Look(t).Headlines; got[0] != gate.want {
						tab.Refresh(t)
						return fmt.Errorf("the page says %q", got)
					}
					return nil
				})
				take(t, tab, p)
			}
		})
	}
}

// startStack starts a stack with a Redis that has a plain address.
func startStack(t *testing.T) *e2e.Stack {
	t.Helper()
	server, addr := redistest.StartTCP(t)
	s := &e2e.Stack{Redis: server, Client: server.Client(t), QueueURL: "redis://" + addr}
	s.API = e2e.StartAPI(t, s.QueueURL)
	s.Gates = []*e2e.Gate{e2e.StartGate(t, map[string]string{"QUEUE_URL": s.QueueURL, "RATE_LIMIT_RUN_PER_MINUTE": "20"})}
	s.Envoy = e2e.StartEnvoy(t, e2e.ShippedConfig, s.API.Addr, s.Gates[0].GRPC)
	s.StartWorker(t, 4)
	return s
}

type picture struct {
	name, scheme string
	width        int64
}

func take(t *testing.T, tab *Tab, p picture) {
	t.Helper()
	end := Ask[float64](t, tab, `document.querySelector(".cards").closest("section").getBoundingClientRect().bottom`)
	tab.Do(t, chromedp.EmulateViewport(p.width, int64(end)+16)) // what is below does not change with the state
	ctx, cancel := context.WithTimeout(tab.ctx, 30*time.Second)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if len(png) > 150<<10 {
		t.Errorf("%s has %d bytes", p.name, len(png))
	}
	if err := os.WriteFile(filepath.Join(*into, p.name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

// send sends requests for so long, more and fewer of them in waves. One caller sends a third.
func send(t *testing.T, s *e2e.Stack, perSecond float64, d time.Duration) {
	t.Helper()
	callers := []string{e2e.Caller(t), e2e.Caller(t), e2e.Caller(t), e2e.Caller(t)}
	var sending sync.WaitGroup
	defer sending.Wait()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	sent := 0.0
	for begin, n := time.Now(), 0; time.Since(begin) < d; <-tick.C {
		wave := 1 + 0.8*math.Sin(time.Since(begin).Seconds()/25)
		for sent += perSecond * wave / 5; sent >= 1; sent-- {
			n++
			caller := callers[n%len(callers)]
			if n%3 == 0 {
				caller = callers[0]
			}
			sending.Go(func() { _, _ = s.Ask(t.Context(), "/run", `{"seconds": 4}`, caller) })
			if n%2 == 0 {
				sending.Go(func() { _, _ = s.Ask(t.Context(), "/assistant", `{"message": "hello"}`, caller) })
			}
		}
	}
}
