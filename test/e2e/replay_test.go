package e2e_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/replay"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestReplay records some seconds of traffic in Envoy's access log. A replay with the recorded limits says of each
// request what the gate said, and counts the refusals as the gate and its clients counted them. With other limits it does
// not.
func TestReplay(t *testing.T) {
	t.Parallel()
	settings := map[string]string{
		"RATE_LIMIT_RUN_BURST": "5", "RATE_LIMIT_RUN_PER_MINUTE": "20", "RATE_LIMIT_ASSISTANT_BURST": "8", "RATE_LIMIT_ASSISTANT_PER_MINUTE": "30",
		"QUEUE_MAX_PENDING": "20", "REDIS_TIMEOUT": "5s",
	}
	s := e2e.Start(t, e2e.Options{Settings: settings, Config: e2e.PatientConfig(t), Gates: 2, OneEnvoy: true})
	settings["QUEUE_URL"] = s.QueueURL       // for the policies: with a queue
	counts := make(map[string]replay.Counts) // by address, as clients count
	sendForAWhile(t, s, counts)              // the queue becomes full
	s.StartWorker(t, 4)
	sendForAWhile(t, s, counts)
	sent := 0
	for _, n := range counts {
		sent += n.Requests
	}
	polltest.Until(t, 20*time.Second, "all requests in the access log", func() error {
		if lines := strings.Count(s.Log(), `"request_id"`); lines != sent {
			return fmt.Errorf("%d of %d", lines, sent)
		}
		return nil
	})
	log := filepath.Join(t.TempDir(), "access.log")
	if err := os.WriteFile(log, []byte(s.Log()), 0o600); err != nil {
		t.Fatal(err)
	}

	r := replayed(t, settings, log)
	if r.Compared < 500 || float64(r.Same) < 0.999*float64(r.Compared) {
		t.Errorf("%d of %d requests are decided as they were", r.Same, r.Compared)
	}
	t.Logf("%d of %d requests are decided as they were", r.Same, r.Compared)
	got, want := total(r), replay.Counts{}
	for _, n := range counts {
		want = want.Plus(n)
	}
	explained(t, "all", got, want)
	if want.Recorded < 50 || want.Queue < 50 {
		t.Errorf("too little was refused: %+v", want)
	}
	counted := map[string]int{}
	for _, g := range s.Gates {
		for name, n := range g.Metrics(t) {
			for _, reason := range []string{"rate_limited", "queue"} {
				if strings.HasPrefix(name, "refrakt_gate_decisions_total{") && strings.Contains(name, `reason="`+reason) {
					counted[reason] += int(n)
				}
			}
		}
	}
	if counted["rate_limited"] != got.Recorded || counted["queue"] != got.Queue {
		t.Errorf("the gates counted %v, the log has %+v", counted, got)
	}

	for caller, n := range counts {
		explained(t, caller, total(replayed(t, settings, log, "--ip", caller)), n)
	}

	settings["RATE_LIMIT_RUN_PER_MINUTE"] = "40"
	if other := replayed(t, settings, log); other.Same >= r.Same {
		t.Errorf("twice the rate decides %d of %d requests as it was, the recorded one %d", other.Same, other.Compared, r.Same)
	}
}

func total(r replay.Report) (sum replay.Counts) {
	for _, h := range r.Hours {
		sum = sum.Plus(h.Counts)
	}
	return sum
}

// explained compares what a replay says with what clients counted: the log has each refusal with its reason, and the
// buckets of the replay refuse as many, but for one in a thousand.
func explained(t *testing.T, who string, got, want replay.Counts) {
	t.Helper()
	refused := got.Refused
	got.Refused = 0
	if got != want || float64(refused) < 0.999*float64(want.Recorded)-1 || float64(refused) > 1.001*float64(want.Recorded)+1 {
		t.Errorf("%s: the replay refuses %d and says %+v, clients counted %+v", who, refused, got, want)
	}
}

// sendForAWhile has callers send requests for two seconds, each of them several at the same time. It counts the answers
// by address.
func sendForAWhile(t *testing.T, s *e2e.Stack, counts map[string]replay.Counts) {
	t.Helper()
	var sending sync.WaitGroup
	var mu sync.Mutex
	for n := range 20 {
		sending.Go(func() {
			random := rand.New(rand.NewPCG(0, uint64(n)))
			caller, path, body := fmt.Sprintf("10.0.0.%d", n%5), "/run", `{"seconds": 0}`
			if n%3 == 0 {
				path, body = "/assistant", `{"message": "hello"}`
			}
			headers := []string{"CF-Connecting-IP: " + caller}
			if n%4 > 0 {
				headers = append(headers, fmt.Sprintf("X-User-ID: u%d", n%7))
			}
			for start := time.Now(); time.Since(start) < 2*time.Second; {
				answer, err := s.Ask(t.Context(), path, body, headers...)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				c := counts[caller]
				c.Requests++
				switch answer.Status {
				case 429:
					c.Recorded++
				case 503:
					c.Queue++
				}
				counts[caller] = c
				mu.Unlock()
				e2e.Pass(t, time.Duration(random.IntN(int(50*time.Millisecond))))
			}
		})
	}
	sending.Wait()
}

func replayed(t *testing.T, settings map[string]string, args ...string) replay.Report {
	t.Helper()
	code, out := e2e.RunGate(t, settings, append([]string{"replay", "-o", "json"}, args...)...)
	var r replay.Report
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
		t.Fatalf("replay %v: exit code %d, %v\n%s", args, code, err, out)
	}
	return r
}
