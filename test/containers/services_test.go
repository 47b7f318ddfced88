//go:build containers

package containers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// check runs the README's line.
func (s *story) check(t *testing.T) {
	t.Log(s.sh(t, "docker compose exec gate refrakt-gate check"))
}

// noCapabilities looks at each process in a container: it is one that has another number there.
func (s *story) noCapabilities(t *testing.T) {
	files, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			t.Fatal(err)
		}
		status := map[string]string{}
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			status[name] = strings.TrimSpace(value)
		}
		if len(strings.Fields(status["NSpid"])) < 2 || strings.HasPrefix(status["State"], "Z") {
			continue
		}
		seen++
		for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
			if strings.Trim(status[set], "0") != "" {
				t.Errorf("%s has capabilities: %s %s", status["Name"], set, status[set])
			}
		}
		if strings.HasPrefix(status["Uid"], "0") || status["NoNewPrivs"] != "1" {
			t.Errorf("%s: Uid %s, NoNewPrivs %s", status["Name"], status["Uid"], status["NoNewPrivs"])
		}
	}
	if seen < 8 {
		t.Errorf("only %d processes are in containers", seen)
	}
	t.Logf("%d processes", seen)
}

// prometheus waits until Prometheus has what the gate counted.
func (s *story) prometheus(t *testing.T) {
	for _, query := range []string{
		`up{job="refrakt-gate"} == 1`,
		`sum(refrakt_gate_decisions_total{policy="run",verdict="deny",reason="rate_limited"}) >= 1`,
	} {
		polltest.Until(t, time.Minute, query+" in Prometheus", func() error {
			var answer struct {
				Data struct{ Result []any }
			}
			if err := get("http://localhost:9090/api/v1/query?query="+url.QueryEscape(query), &answer); err != nil {
				return err
			}
			if len(answer.Data.Result) == 0 {
				return errors.New("not yet")
			}
			return nil
		})
	}
}

// queue fills the queue while no worker takes jobs, and has the worker drain it.
func (s *story) queue(t *testing.T) {
	s.drained(t)
	s.sh(t, "docker compose stop worker")
	const limit = 40 // of the preset
	full := []string{newCaller(), newCaller(), newCaller(), newCaller(), newCaller()}
	sent, r := 0, e2e.Response{}
	for ; sent <= limit; sent++ {
		if r = post(t, "/run", full[sent/10], `{"seconds": 0}`); r.Status != http.StatusAccepted {
			break
		}
	}
	if sent != limit || r.Status != http.StatusServiceUnavailable {
		t.Fatalf("after %d requests: got %d %s, want 503 after %d", sent, r.Status, r.Body, limit)
	}
	t.Logf("503 with Retry-After: %v, %s", r.RetryAfter(t), r.Body)
	s.sh(t, "docker compose start worker")
	began := time.Now()
	answers(t, "/run", http.StatusAccepted)
	t.Logf("room again %v after the start of the worker", since(began))
	s.drained(t)
	answers(t, "/assistant", http.StatusOK) // it sees the queue as the newest sample does
}

// drained waits until all jobs are done.
func (s *story) drained(t *testing.T) {
	t.Helper()
	polltest.Until(t, time.Minute, "all jobs to be done", func() error {
		if n := s.sh(t, "docker compose exec redis redis-cli zcard saq:default:incomplete"); n != "0" {
			return fmt.Errorf("%s are left", n)
		}
		return nil
	})
}

// redis stops Redis: the gate's own buckets decide.
func (s *story) redis(t *testing.T) {
	s.sh(t, "docker compose stop redis")
	caller := newCaller()
	const burst = 30 // of the preset
	allowed, r := 0, e2e.Response{}
	for ; allowed <= 2*burst; allowed++ {
		if r = post(t, "/assistant", caller, ""); r.Status != http.StatusOK {
			break
		}
	}
	// It refills while it is emptied.
	if r.Status != http.StatusTooManyRequests || allowed < burst || allowed > burst+10 {
		t.Errorf("without Redis: %d passed, then %d %s; want about %d, then 429", allowed, r.Status, r.Body, burst)
	}
	r.RetryAfter(t)
	s.sh(t, "docker compose start redis")
	began := time.Now()
	answers(t, "/run", http.StatusAccepted)
	polltest.Until(t, time.Minute, "the gate to be ready without complaint", func() error {
		var state struct {
			Ready    bool
			Degraded []string
		}
		if err := get("http://localhost:9464/readyz", &state); err != nil {
			return err
		}
		if !state.Ready || len(state.Degraded) > 0 {
			return fmt.Errorf("%+v", state)
		}
		return nil
	})
	t.Logf("all as before %v after the start of Redis", since(began))
}

func (s *story) envoyKilled(t *testing.T) { s.killed(t, "envoy") }
func (s *story) gateKilled(t *testing.T)  { s.killed(t, "gate") }

// killed kills a service's process, as a crash does, and waits until all is well again.
func (s *story) killed(t *testing.T, service string) {
	pid, err := strconv.Atoi(s.inspect(t, service, ".State.Pid"))
	if err != nil || pid < 2 {
		t.Fatalf("the process of %s: %d, %v", service, pid, err)
	}
	began := time.Now()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	polltest.Until(t, time.Minute, "another process of "+service, func() error {
		if now := s.inspect(t, service, ".State.Pid"); now == strconv.Itoa(pid) || now == "0" {
			return fmt.Errorf("its number is %s", now)
		}
		return nil
	})
	caller := answers(t, "/run", http.StatusAccepted)
	t.Logf("answers again after %v", since(began))
	s.limits(t, caller, 9)
}

// limits asks so many times for a caller who has so many tokens, and once more.
func (s *story) limits(t *testing.T, caller string, tokens int) {
	t.Helper()
	for i := range tokens {
		if r := post(t, "/run", caller, `{"seconds": 0}`); r.Status != http.StatusAccepted {
			t.Fatalf("request %d of %d: got %d %s, want 202", i+1, tokens, r.Status, r.Body)
		}
	}
	if r := post(t, "/run", caller, ""); r.Status != http.StatusTooManyRequests {
		t.Fatalf("after %d requests: got %d %s, want 429", tokens, r.Status, r.Body)
	}
}

// gateStopped stops the gate as an update does.
func (s *story) gateStopped(t *testing.T) {
	began := time.Now()
	s.sh(t, "docker compose stop gate")
	t.Logf("stopped in %v", since(began))
	if code := s.inspect(t, "gate", ".State.ExitCode"); code != "0" {
		t.Errorf("exit code %s, want 0", code)
	}
	s.sh(t, "docker compose up --wait gate")
	answers(t, "/run", http.StatusAccepted)
}

// policies puts another policy file into place, which the gate takes without a restart.
func (s *story) policies(t *testing.T) {
	file := filepath.Join(s.clone(), "examples", "policies", "preset.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.ReplaceAll(string(text), "burst: 10,", "burst: 3,")
	if changed == string(text) {
		t.Fatalf("no burst of 10 in %s", text)
	}
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	before := s.inspect(t, "gate", ".Id .State.StartedAt")
	s.sh(t, "docker compose up -d --build policies")
	began := time.Now()
	polltest.Until(t, time.Minute, "the burst of the new file", func() error {
		caller := newCaller()
		for i := range 3 {
			if r := post(t, "/run", caller, `{"seconds": 0}`); r.Status != http.StatusAccepted {
				return fmt.Errorf("request %d: %d %s", i+1, r.Status, r.Body)
			}
		}
		if r := post(t, "/run", caller, `{"seconds": 0}`); r.Status != http.StatusTooManyRequests {
			return fmt.Errorf("after 3 requests: %d %s", r.Status, r.Body)
		}
		return nil
	})
	t.Logf("it counted %v after the command", since(began))
	if after := s.inspect(t, "gate", ".Id .State.StartedAt"); after != before {
		t.Errorf("the gate was %s, and is %s", before, after)
	}
}

// down removes all.
func (s *story) down(t *testing.T) {
	s.sh(t, "docker compose down --volumes")
	for what, list := range map[string]string{
		"containers": "docker ps --all --quiet", "volumes": "docker volume ls --quiet",
		"networks": `docker network ls --format '{{.Name}}' | grep -v -x -e bridge -e host -e none || true`,
	} {
		if left := s.sh(t, list); left != "" {
			t.Errorf("%s are left: %s", what, left)
		}
	}
}

// withoutRedis: a Redis that is not there is named.
func (s *story) withoutRedis(t *testing.T) {
	file := filepath.Join(s.home, "elsewhere.yml")
	if err := os.WriteFile(file, []byte("services: {gate: {environment: {QUEUE_URL: 'redis://nowhere:6379/0'}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	compose := "docker compose -f docker-compose.yml -f " + file
	began := time.Now()
	out, err := s.try(t.Context(), s.clone(), compose+" up --build --wait")
	if err == nil {
		t.Fatalf("it succeeded: %s", out)
	}
	t.Logf("it failed after %v: %s", since(began), tail(out, 2))
	if !strings.Contains(tail(out, 2), "gate") {
		t.Errorf("it does not say that it is the gate: %s", tail(out, 2))
	}
	if logs := s.sh(t, compose+" logs gate"); !strings.Contains(logs, "nowhere") {
		t.Errorf("the log does not say why: %s", logs)
	}
	s.sh(t, compose+" down --volumes")
}

// inspect returns fields of a service's container.
func (s *story) inspect(t *testing.T, service, fields string) string {
	t.Helper()
	var format strings.Builder
	for field := range strings.FieldsSeq(fields) {
		fmt.Fprintf(&format, "{{%s}} ", field)
	}
	return s.sh(t, "docker inspect --format '"+strings.TrimSpace(format.String())+"' $(docker compose ps --all --quiet "+service+")")
}

// answers asks as new callers until the status is the wanted one, and returns the last caller.
func answers(t *testing.T, path string, status int) (caller string) {
	t.Helper()
	polltest.Until(t, time.Minute, fmt.Sprintf("%s to be answered with %d", path, status), func() error {
		caller = newCaller()
		r, err := ask(t, path, caller, `{"seconds": 0}`)
		if err == nil && r.Status != status {
			err = fmt.Errorf("%d %s", r.Status, r.Body)
		}
		return err
	})
	return caller
}

var callers atomic.Uint32

// newCaller is a header that makes a request come from an address that was not used before. Docker's bridge is a trusted
// proxy, so the gate believes it.
func newCaller() string {
	n := callers.Add(1)
	return fmt.Sprintf("CF-Connecting-IP: 198.18.%d.%d", n/250, n%250+1)
}

func ask(t *testing.T, path, caller, body string) (e2e.Response, error) {
	t.Helper()
	envoy := e2e.Envoy{Addr: "localhost:8080"}
	if caller == "" {
		return envoy.Ask(t.Context(), path, body)
	}
	return envoy.Ask(t.Context(), path, body, caller)
}

func post(t *testing.T, path, caller, body string) e2e.Response {
	t.Helper()
	r, err := ask(t, path, caller, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// get reads JSON.
func get(url string, into any) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %s: %w", url, resp.Status, text, err)
	}
	return nil
}

func since(began time.Time) time.Duration { return time.Since(began).Round(10 * time.Millisecond) }
