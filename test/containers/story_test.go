//go:build containers

package containers

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// story is a play and what its steps share.
type story struct {
	Folder
	env  []string
	home string // where the project is cloned to
}

// steps of the story, in their order.
var steps = []struct {
	name string
	play func(*story, *testing.T)
}{
	{"the stand-ins are built", (*story).buildStandIns},
	{"from nothing to the first 429", (*story).firstSteps},
	{"the gate is asked in its container", (*story).check},
	{"no process has a capability", (*story).noCapabilities},
	{"Prometheus has the gate", (*story).prometheus},
	{"the queue is full, then drained", (*story).queue},
	{"Redis is stopped and comes back", (*story).redis},
	{"Envoy is killed", (*story).envoyKilled},
	{"the gate is killed", (*story).gateKilled},
	{"the gate is stopped", (*story).gateStopped},
	{"another policy file", (*story).policies},
	{"down leaves nothing", (*story).down},
	{"up fails without Redis", (*story).withoutRedis},
	{"images of a release", (*story).images},
}

func startEngineFor(t *testing.T, f Folder) *story {
	t.Helper()
	e, err := startEngine(t.Context(), string(f))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.end)
	home := f.path("home")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	return &story{f, slices.Concat(e.Env, clonesFrom(f.project())), home}
}

// play plays all steps. Each needs those before it.
func play(t *testing.T, f Folder) {
	s := startEngineFor(t, f)
	for _, step := range steps {
		if !t.Run(step.name, func(t *testing.T) { step.play(s, t) }) {
			t.Fatalf("ended after %q:\n%s", step.name, s.describe())
		}
	}
}

// describe says how the services are and what they said last.
func (s *story) describe() string {
	out, _ := s.try(context.Background(), s.clone(), "docker compose ps --all; docker compose logs --tail 30")
	return out
}

func (s *story) clone() string { return filepath.Join(s.home, "refrakt-gate") }

// try runs lines for a shell in dir and returns what they print.
func (s *story) try(ctx context.Context, dir, script string) (string, error) {
	return output(ctx, dir, s.env, "bash", "-euo", "pipefail", "-c", "exec 2>&1\n"+script)
}

// sh runs lines for a shell in the clone, which must succeed.
func (s *story) sh(t *testing.T, script string) string {
	t.Helper()
	out, err := s.try(t.Context(), s.clone(), script)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func (s *story) buildStandIns(t *testing.T) {
	if _, err := os.Stat(s.standIns()); err != nil {
		t.Log("the bases come from the registry")
		return
	}
	var imports errgroup.Group
	for _, name := range []string{"debian", "golang"} {
		imports.Go(func() error {
			_, err := s.try(t.Context(), "", "docker import "+s.root(name)+" stand-ins/"+name)
			return err
		})
	}
	if err := imports.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.try(t.Context(), s.standIns(), "docker compose build --quiet"); err != nil {
		t.Fatal(err)
	}
}

// firstSteps runs the README's lines, then asks once more.
func (s *story) firstSteps(t *testing.T) {
	out, err := s.try(t.Context(), s.home, FirstSteps)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("202\n", 10) + "429\n"
	if !strings.HasSuffix(out, want) {
		t.Errorf("got:\n%s\nwant at the end:\n%s", out, want)
	}
	r := post(t, "/run", "", "")
	if r.Status != http.StatusTooManyRequests {
		t.Fatalf("once more: got %d %s, want 429", r.Status, r.Body)
	}
	t.Logf("429 with Retry-After: %v", r.RetryAfter(t))
}
