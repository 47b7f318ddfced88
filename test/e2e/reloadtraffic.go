package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
)

// ReloadTraffic sends requests to /seen and /shut and reads from the headers which policies decided them: the burst of
// their only bucket is a number that grows with each change.
type ReloadTraffic struct {
	envoy          *Envoy
	seen, requests atomic.Int64
	stop           context.CancelFunc
	running        sync.WaitGroup

	mu   sync.Mutex
	errs []error
}

var quotaPolicy = regexp.MustCompile(`^"(?:seen|shut)";q=(\d+);w=\d+$`)

// NewReloadTraffic starts to send.
func NewReloadTraffic(envoy *Envoy) *ReloadTraffic {
	ctx, stop := context.WithCancel(context.Background())
	r := &ReloadTraffic{envoy: envoy, stop: stop}
	for i := range 4 {
		r.running.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				if err := r.ask(ctx, n); err != nil {
					r.mu.Lock()
					r.errs = append(r.errs, err)
					r.mu.Unlock()
					return
				}
			}
		})
	}
	return r
}

func (r *ReloadTraffic) ask(ctx context.Context, n int) error {
	least := r.seen.Load()
	path, header, want := "/seen", "CF-Connecting-IP: 198.51.100.1", http.StatusOK
	switch n % 8 {
	case 1:
		path = "/shut"
	case 2:
		path, header, want = "/shut", "CF-Connecting-IP: 192.0.2.66", http.StatusForbidden
	case 3:
		path = "/other"
	}
	resp, err := r.envoy.Ask(ctx, path, "", header)
	if err != nil {
		return err
	}
	r.requests.Add(1)
	if resp.Status != want {
		return fmt.Errorf("%s: %d %s, want %d", path, resp.Status, resp.Body, want)
	}
	if path == "/other" || want == http.StatusForbidden {
		return nil
	}
	found := quotaPolicy.FindStringSubmatch(resp.Header.Get("RateLimit-Policy"))
	if found == nil {
		return errors.New("RateLimit-Policy: " + resp.Header.Get("RateLimit-Policy"))
	}
	version, err := strconv.ParseInt(found[1], 10, 64)
	if err != nil {
		return fmt.Errorf("read RateLimit-Policy: %w", err)
	}
	if version < least {
		return fmt.Errorf("%s was decided by version %d, after version %d was seen", path, version, least)
	}
	for now := r.seen.Load(); version > now && !r.seen.CompareAndSwap(now, version); now = r.seen.Load() {
	}
	return nil
}

// Seen is the newest number that an answer had.
func (r *ReloadTraffic) Seen() int64 { return r.seen.Load() }

// Requests is how many requests were answered.
func (r *ReloadTraffic) Requests() int64 { return r.requests.Load() }

// Stop ends the traffic and returns what was wrong.
func (r *ReloadTraffic) Stop() []error {
	r.stop()
	r.running.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.errs
}
