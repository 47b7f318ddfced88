package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// startPolicies starts three gates, each behind its own Envoy, before the real API, with one policy whose buckets stop
// nobody. queue has more keys of its queue.
func startPolicies(tb testing.TB, queue, window string) *e2e.Stack {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "policies.yaml")
	text := fmt.Sprintf(`
tiers: {premium: 3}
queues:
  default: {max_pending: %d%s}
policies:
  run:
    match: ["/run"]
    queue: default
    becomes_job: true
    buckets: [{per: ip, burst: 1000, rate: 1000/s}]
`, maxPending, queue)
	must(tb, os.WriteFile(file, []byte(text), 0o600))
	return e2e.Start(tb, e2e.Options{Gates: 3, Config: e2e.PatientConfig(tb), Settings: map[string]string{
		"POLICY_FILE": file, "QUEUE_ADMISSION_WINDOW": window, "REDIS_TIMEOUT": patientTimeout, "QUEUE_FAILURE_MODE": "deny",
		"PROMETHEUS_QUEUE_POLL_INTERVAL": "100ms",
	}})
}

// offer is what one caller asks for: so many runs a second on average, whatever it is answered.
type offer struct {
	address   string
	perSecond float64
	premium   bool
	// steady says that the times between two requests are from half to one and a half of the average; otherwise the
	// requests come at random (a Poisson process).
	steady bool
}

// pause is the time until the next request.
func (o offer) pause(random *rand.Rand) time.Duration {
	times := random.ExpFloat64()
	if o.steady {
		times = 0.5 + random.Float64()
	}
	return time.Duration(times / o.perSecond * float64(time.Second))
}

// got is what became of an offer.
type got struct {
	asked, accepted, share, full int // share, full: refusals by the caller's share and by the queue
}

// part is the part of the requests that were accepted.
func (g got) part() float64 { return float64(g.accepted) / float64(max(1, g.asked)) }

func (g got) and(other got) got {
	return got{g.asked + other.asked, g.accepted + other.accepted, g.share + other.share, g.full + other.full}
}

// makeOffers has callers ask all gates in turn until ctx ends. Each request is answered on its own, so a slow answer holds up no
// other. The same seed has the same requests.
func makeOffers(ctx context.Context, tb testing.TB, s *e2e.Stack, offers []offer, seed uint64) []got {
	tb.Helper()
	all := make([]got, len(offers))
	var mu sync.Mutex
	var asking sync.WaitGroup
	for i, o := range offers {
		random := rand.New(rand.NewPCG(seed, uint64(i))) //nolint:gosec // no secret
		asking.Go(func() {
			next := time.Now().Add(time.Duration(random.Float64() * float64(o.pause(random)))) // not all at once
			for n := 0; ; n++ {
				if wait(ctx, time.Until(next)); ctx.Err() != nil {
					return
				}
				next = next.Add(o.pause(random))
				asking.Go(func() {
					headers := []string{"CF-Connecting-IP: " + o.address}
					if o.premium {
						headers = append(headers, "X-RateLimit-Tier: premium")
					}
					r, err := s.Envoys[(i+n)%len(s.Envoys)].Ask(context.WithoutCancel(ctx), "/run", `{"seconds": 0.2}`, headers...)
					if err != nil {
						tb.Errorf("%s: %v", o.address, err)
					}
					mu.Lock()
					defer mu.Unlock()
					all[i].asked++
					switch r.Status {
					case http.StatusAccepted:
						all[i].accepted++
					case http.StatusTooManyRequests:
						all[i].share++
					case http.StatusServiceUnavailable:
						all[i].full++
					default:
						tb.Errorf("%s: status %d", o.address, r.Status)
					}
				})
			}
		})
	}
	asking.Wait()
	return all
}
