package main

import (
	"context"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

func TestMain(m *testing.M) { os.Exit(e2e.Main(m)) }

// TestStory: `make demo` ends well, with the answer to why a caller was refused.
func TestStory(t *testing.T) {
	var told strings.Builder
	if err := play(t.Context(), io.MultiWriter(t.Output(), &told), tellStory); err != nil {
		t.Error(err)
	}
	end := regexp.MustCompile(`\$ refrakt-gate show --ip \S+\n +POLICY +BUCKET .*\n +run .*\n +assistant +assistant +ip +0 of 2 +in \S+ .*\n\n +QUEUE .*\n +default .*\n\nEvery answer was as expected.\n$`)
	if !end.MatchString(told.String()) {
		t.Errorf("it does not end as %s", end)
	}
}

// TestPlay: how a story can end, and that what it started is ended each time, the last first.
func TestPlay(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for name, tt := range map[string]struct {
		ctx   context.Context
		story func(*program)
		want  string
	}{
		"well":    {t.Context(), func(*program) {}, ""},
		"failed":  {t.Context(), func(p *program) { p.Fatalf("no %s", "Envoy") }, "no Envoy"},
		"stopped": {stopped, func(p *program) { p.Fatal("stopped waiting") }, ""},
		"ended by itself": {t.Context(), func(p *program) {
			waitForEnd(p, proctest.Start(p, proctest.Command{Name: "sh", Path: "/bin/sh", Args: []string{"-c", "exit 3"}}))
		}, "sh ended by itself (exit code 3)"},
		"ended by the user": {stopped, func(p *program) {
			waitForEnd(p, proctest.Start(p, proctest.Command{Name: "sleep", Path: "/bin/sleep", Args: []string{"1000"}}))
		}, ""},
	} {
		var cleaned []string
		err := play(tt.ctx, t.Output(), func(p *program) {
			p.Cleanup(func() { cleaned = append(cleaned, "first") })
			p.Cleanup(func() { cleaned = append(cleaned, "second") })
			tt.story(p)
		})
		if (err == nil) != (tt.want == "") || err != nil && err.Error() != tt.want {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
		if !slices.Equal(cleaned, []string{"second", "first"}) {
			t.Errorf("%s: cleaned up: %v", name, cleaned)
		}
	}
}
