package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/refrakt-hub/refrakt-gate/internal/condition"
	"github.com/refrakt-hub/refrakt-gate/internal/settings"
	"github.com/refrakt-hub/refrakt-gate/policy"
)

// switchable are the settings that SWITCHES_FILE can change while the gate runs.
var switchable = []string{"RATE_LIMIT_SHADOW", "QUEUE_SHADOW"}

// readSwitches returns the environment with the settings of SWITCHES_FILE in place of its
// own. If there is no such file, it changes nothing.
func readSwitches(environ map[string]string) (map[string]string, []error) {
	path := environ["SWITCHES_FILE"]
	if path == "" {
		return environ, nil
	}
	content, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if errors.Is(err, fs.ErrNotExist) {
		return environ, nil
	}
	if err != nil {
		return environ, []error{fmt.Errorf("SWITCHES_FILE: %w", err)}
	}
	var mistakes settings.Mistakes
	out := maps.Clone(environ)
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, _ := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		if err := settings.OneOf(name, switchable...); err != nil {
			mistakes.Add("SWITCHES_FILE", err)
			continue
		}
		out[name] = strings.TrimSpace(value)
	}
	return out, mistakes
}

// switchesInterval is how often SWITCHES_FILE is read.
const switchesInterval = time.Second

// watchSwitches reads SWITCHES_FILE until ctx ends, and applies each change. A file with a
// mistake changes nothing but broken.
func watchSwitches(ctx context.Context, environ map[string]string, now policy.Switches, apply func(policy.Switches), broken *atomic.Bool, log *slog.Logger) {
	tick := time.NewTicker(switchesInterval)
	defer tick.Stop()
	usable := condition.New(log, "SWITCHES_FILE does not count; what was in force remains in force", "SWITCHES_FILE counts again")
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		next, err := loadSwitches(environ)
		broken.Store(err != nil)
		if err != nil {
			usable.Fail(err)
			continue
		}
		usable.Succeed()
		if next != now {
			now = next
			apply(now)
			log.Warn("switched", "RATE_LIMIT_SHADOW", now.LimitShadow.String(), "QUEUE_SHADOW", now.QueueShadow.String())
		}
	}
}

func loadSwitches(environ map[string]string) (policy.Switches, error) {
	environ, errs := readSwitches(environ)
	var s policy.Switches
	err := env.ParseWithOptions(&s, env.Options{Environment: environ})
	return s, errors.Join(append(errs, err)...)
}
