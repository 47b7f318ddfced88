package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/refrakt-hub/refrakt-gate/authz"
	"github.com/refrakt-hub/refrakt-gate/policy"
)

// readPolicies returns the policies of POLICY_FILE, or those that the environment amounts
// to. It also returns every mistake in the file.
func (c Config) readPolicies() (*policy.File, []error) {
	if c.PolicyFile == "" {
		return c.Policy.File(c.QueueURL != ""), nil
	}
	file, mistakes := policy.Read(c.PolicyFile)
	if len(mistakes) > 0 {
		for i, m := range mistakes {
			mistakes[i] = fmt.Errorf("POLICY_FILE: %w", m)
		}
		return nil, mistakes
	}
	return file, c.fits(file)
}

// fits returns what a policy file needs of the settings and does not find there.
func (c Config) fits(file *policy.File) (mistakes []error) {
	if len(file.Queues) > 0 && c.QueueURL == "" {
		mistakes = append(mistakes, fmt.Errorf("POLICY_FILE: %s has queues: set QUEUE_URL, the Redis that they are in", c.PolicyFile))
	}
	byUser := func(c policy.Caller) bool { return c.User != "" }
	if slices.ContainsFunc(file.Callers, byUser) && !slices.Contains(c.Authz.UserSources, authz.UserJWT) {
		mistakes = append(mistakes, fmt.Errorf("POLICY_FILE: %s has callers by user, which are verified users: add jwt to USER_ID_SOURCES, and have Envoy verify tokens", c.PolicyFile))
	}
	return mistakes
}

// withoutPolicies is an environment for commands that ask a running gate. The gate goes on
// with what was in force when a file that may change gets a mistake, so they must too.
func withoutPolicies(environ map[string]string) map[string]string {
	environ = maps.Clone(environ)
	delete(environ, "POLICY_FILE")
	delete(environ, "SWITCHES_FILE")
	return environ
}

// replaced are the variables that a policy file stands for.
var replaced = []string{
	"RATE_LIMIT_RUN_BURST", "RATE_LIMIT_RUN_PER_MINUTE", "RATE_LIMIT_ASSISTANT_BURST", "RATE_LIMIT_ASSISTANT_PER_MINUTE",
	"RATE_LIMIT_PREMIUM_MULTIPLIER", "QUEUE_NAME", "QUEUE_MAX_PENDING", "QUEUE_MAX_AGE_SECONDS",
	"RATE_LIMIT_SHADOW", "QUEUE_SHADOW", "SWITCHES_FILE",
}

// replacedButSet returns a mistake for each variable that is set beside POLICY_FILE, though
// the file stands for it.
func replacedButSet(environ map[string]string) (mistakes []error) {
	if environ["POLICY_FILE"] == "" {
		return nil
	}
	for _, name := range replaced {
		if environ[name] != "" {
			mistakes = append(mistakes, fmt.Errorf("%s: unset it: POLICY_FILE is set, and stands for it", name))
		}
	}
	return mistakes
}

// tell logs that a file is in force.
func tell(file *policy.File, msg string, log *slog.Logger) {
	names := make([]string, 0, 10)
	for _, p := range file.Policies {
		if names = append(names, p.Name); len(names) == cap(names) {
			break
		}
	}
	log.Info(msg, "policies", len(file.Policies), "first", strings.Join(names, ","), "queues", len(file.Queues), "callers", len(file.Callers))
}

// warn logs what is allowed in a policy file, but may not be meant.
func warn(file *policy.File, log *slog.Logger) {
	for _, line := range file.Words() {
		if text, ok := strings.CutPrefix(line, policy.Warning); ok {
			log.Warn("POLICY_FILE may not say what is meant: " + text)
		}
	}
}

// put has the gate decide by these policies from now on.
func (g *gate) put(file *policy.File) {
	set := policy.Compile(file)
	in, settle := g.queues.apply(file.Queues)
	g.checks.Use(authz.Rules{Policies: set, Queues: in})
	settle()
	g.tellPage(file)
}

// reloadInterval is how often POLICY_FILE is looked at.
const reloadInterval = time.Second

// reloader has the gate decide by what POLICY_FILE says now. A file with a mistake changes
// nothing.
type reloader struct {
	cfg     Config
	now     *policy.File // in force
	put     func(*policy.File)
	log     *slog.Logger
	broken  atomic.Pointer[string] // what is wrong; nil: nothing
	success prometheus.Gauge       // time of the last success

	read, seen fs.FileInfo // the file that was read last, and the one that was seen last
}

func newReloader(cfg Config, put func(*policy.File), reg prometheus.Registerer, log *slog.Logger) *reloader {
	r := &reloader{cfg: cfg, now: cfg.policies, put: put, log: log}
	auto := promauto.With(reg)
	r.success = auto.NewGauge(prometheus.GaugeOpts{
		Name: "refrakt_gate_policy_reload_success_timestamp_seconds",
		Help: "When POLICY_FILE was last read without a mistake, in seconds since the epoch.",
	})
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "refrakt_gate_policy_reload_successful",
		Help: "1 while what POLICY_FILE says is in force, 0 while the file has a mistake and an older state is in force.",
	}, func() float64 {
		if r.broken.Load() != nil {
			return 0
		}
		return 1
	})
	r.success.SetToCurrentTime()
	return r
}

// watch looks at the file until ctx ends, once a second and whenever now has a value.
func (r *reloader) watch(ctx context.Context, now <-chan os.Signal) {
	tick := time.NewTicker(reloadInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-now:
			r.reload()
		case <-tick.C:
			r.look()
		}
	}
}

// look reads the file if it is another one than before, and has not changed since the last
// look: somebody may be writing it.
func (r *reloader) look() {
	info, err := os.Stat(r.cfg.PolicyFile)
	switch {
	case err != nil:
		r.seen, r.read = nil, nil
		r.fail(err)
	case same(info, r.read):
	case same(info, r.seen):
		r.reload()
	default:
		r.seen = info
	}
}

// same says that nothing has changed from one look at a file to the next. A ConfigMap that
// is mounted gets a new file behind its links.
func same(a, b fs.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// reload reads the file and puts it in force, if it has no mistake and says something new.
func (r *reloader) reload() {
	info, err := os.Stat(r.cfg.PolicyFile)
	r.read, r.seen = nil, nil // what can't be read is looked at again
	if err != nil {
		r.fail(err)
		return
	}
	file, mistakes := r.cfg.readPolicies()
	err = errors.Join(mistakes...)
	if _, unread := errors.AsType[*fs.PathError](err); !unread {
		r.read, r.seen = info, info
	}
	if err != nil {
		r.fail(err)
		return
	}
	if !reflect.DeepEqual(file, r.now) {
		r.put(file)
		r.now = file
		warn(file, r.log)
		debug.FreeOSMemory() // a large file takes much to read, and changes seldom
		tell(file, "POLICY_FILE has changed and is in force", r.log)
	}
	r.success.SetToCurrentTime()
	if r.broken.Swap(nil) != nil {
		r.log.Info("POLICY_FILE counts again")
	}
}

// fail logs each error once in a row.
func (r *reloader) fail(err error) {
	text := err.Error()
	if before := r.broken.Swap(&text); before == nil || *before != text {
		r.log.Warn("POLICY_FILE does not count; what was in force remains in force", "error", text)
	}
}
