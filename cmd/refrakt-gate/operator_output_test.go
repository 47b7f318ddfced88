package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// gateAt serves a gate with this environment, and returns its address. Its queues are sampled
// when the test calls sample.
func gateAt(t *testing.T, environ []string) (addr string, sample func()) {
	t.Helper()
	cfg, mistakes := loadConfig(toMap(environ))
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	g, err := newGate(cfg, newRegistry(), slog.New(slog.DiscardHandler))
	must(t, err)
	socket := filepath.Join(t.TempDir(), "gate.sock")
	l, err := net.Listen("unix", socket)
	must(t, err)
	served := make(chan error)
	go func() { served <- g.server.Serve(l) }()
	t.Cleanup(func() {
		g.server.Stop()
		g.close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return "unix://" + socket, func() { must(t, g.queues.sample(t.Context())) }
}

// asJSON runs a command with -o json and reads what it prints.
func asJSON[T any](t *testing.T, environ []string, code int, args ...string) (v T) {
	t.Helper()
	got, stdout, stderr := runCLI(t, environ, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(stdout), &v); err != nil || got != code {
		t.Fatalf("%q: exit code %d, want %d, %v\n%s%s", args, got, code, err, stdout, stderr)
	}
	return v
}

// TestDryRunCountsAdmissions: a dry run counts the requests that are on their way, as the gate does, and changes nothing.
func TestDryRunCountsAdmissions(t *testing.T) {
	server := redistest.Start(t)
	admin := server.Client(t)
	environ := []string{"QUEUE_URL=" + server.URL(), "QUEUE_ADMISSION_WINDOW=1m", "QUEUE_FAILURE_MODE=deny", "POLICY_FILE=" + policyFile(t, `
queues: {shared: {max_pending: 6, max_age: 0s, fair_share: 1}, plain: {max_pending: 2, max_age: 0s}, broken: {max_pending: 6, max_age: 0s, fair_share: 1}, open: {max_pending: 0, max_age: 1h}}
policies:
  shared: {match: [/shared], queue: shared, becomes_job: true, buckets: [{per: ip, burst: 50, rate: 1/h}]}
  plain: {match: [/plain], queue: plain, becomes_job: true}
  broken: {match: [/broken], queue: broken, becomes_job: true}
  open: {match: [/open], queue: open, becomes_job: true}
`)}
	must(t, admin.Set(t.Context(), "refrakt:gate:order:broken", "no list", 0).Err())
	addr, sample := gateAt(t, environ)
	type answer struct {
		Allowed  bool
		Status   int
		Body     string
		Metadata struct{ Reason, Policy string }
		Headers  map[string]string
		Buckets  []struct{ Policy string }
	}
	for i, want := range []string{
		"a /shared ok", "a /shared ok", "a /shared ok", "a /shared queue_share", "b /shared ok", "b /shared queue_share", "c /shared ok",
		"d /shared queue_full", "a /plain ok", "a /plain ok", "b /plain queue_full", "a /broken queue_unknown", "a /open ok",
	} {
		who, path, reason := strings.Fields(want)[0], strings.Fields(want)[1], strings.Fields(want)[2]
		code := map[bool]int{true: exitOK, false: exitDenied}[reason == "ok"]
		args := []string{"check", "--path", path, "--ip", fmt.Sprint("203.0.113.", who[0])}
		sample()
		dry := asJSON[answer](t, environ, code, append(args, "--dry-run")...)
		again := asJSON[answer](t, environ, code, append(args, "--dry-run")...)
		asked := asJSON[answer](t, environ, code, append(args, "--addr", addr)...)
		if len(dry.Buckets) != map[bool]int{true: 1, false: 0}[path == "/shared"] || dry.Buckets == nil && path == "/shared" || asked.Buckets != nil {
			t.Errorf("request %d: the buckets are %v, and %v of a gate", i, dry.Buckets, asked.Buckets)
		}
		if retry := dry.Headers["retry-after"]; (retry == "") != dry.Allowed {
			t.Errorf("request %d, %s: retry-after is %q", i, want, retry)
		}
		for _, a := range []answer{dry, again, asked} {
			if a.Allowed != (reason == "ok") || a.Metadata.Reason != reason || a.Metadata.Policy != path[1:] || a.Status != asked.Status || a.Body != asked.Body {
				t.Errorf("request %d, %s: it says %+v, the gate says %+v", i, want, a, asked)
			}
		}
	}
}

// TestShowKnowsExceptions: show says what the policies have for the caller alone, and what else keeps buckets from being asked.
func TestShowKnowsExceptions(t *testing.T) {
	server := redistest.Start(t)
	environ := []string{"QUEUE_URL=" + server.URL(), "USER_ID_SOURCES=jwt,header", "POLICY_FILE=" + policyFile(t, `
tiers: {premium: 3, batch: 5}
queues: {jobs: {max_pending: 100, max_age: 0s, fair_share: 1, reserve: {tiers: [premium], share: 0.5}}}
policies:
  run: {match: [/run], queue: jobs, becomes_job: true, buckets: [{per: ip, burst: 10, rate: 1/h}, {per: user, burst: 10, rate: 1/h}]}
  tried: {match: [/tried], shadow: limits, buckets: [{per: ip, burst: 10, rate: 1/h}, {per: all, burst: 10, rate: 1/h, name: everybody}]}
callers:
- {ip: 203.0.113.1, then: deny}
- {ip: 203.0.113.2, then: exempt}
- {ip: 203.0.113.3, then: {tier: premium}}
- {ip: 203.0.113.4, then: {tier: plain}}
- {user: mallory, then: deny}
`)}
	type caller struct {
		Denied, Exempt bool
		Tier           string
		Limited        bool `json:"limits_enabled"`
		Buckets        []struct {
			Policy   string
			Capacity int64
			Shadow   bool
		}
		Places []struct {
			MayHold int `json:"may_hold"`
		}
	}
	const denied, exempt = "denied: 403 for every guarded request", "exempt: no bucket is asked"
	for args, want := range map[string]struct {
		caller

		capacity int64
		mayHold  int
		note     string
	}{
		"--ip 203.0.113.9":                               {caller{}, 10, 49, "tried: limits in shadow mode, nothing is refused"},
		"--ip 203.0.113.9 --tier premium":                {caller{}, 30, 99, ""},
		"--ip 203.0.113.1":                               {caller{Denied: true}, 10, 49, denied},
		"--ip ::ffff:203.0.113.1":                        {caller{Denied: true}, 10, 49, denied},
		"--ip 203.0.113.2":                               {caller{Exempt: true}, 10, 49, exempt},
		"--ip 203.0.113.3":                               {caller{Tier: "premium"}, 30, 99, "tier: premium (callers of POLICY_FILE)"},
		"--ip 203.0.113.3 --tier batch":                  {caller{Tier: "premium"}, 30, 99, "tier: premium"},
		"--ip 203.0.113.4 --tier batch":                  {caller{Tier: "plain"}, 10, 49, "tier: plain"},
		"--ip 203.0.113.2 --user mallory --verified":     {caller{Denied: true}, 10, 49, denied},
		"--ip 203.0.113.2 --user mallory":                {caller{Exempt: true}, 10, 49, exempt},
		"--ip 203.0.113.3 --user ann --verified -o text": {caller{Tier: "premium"}, 30, 99, "tier: premium"},
	} {
		show := append([]string{"show"}, strings.Fields(args)...)
		got := asJSON[caller](t, environ, exitOK, show...)
		if got.Denied != want.Denied || got.Exempt != want.Exempt || got.Tier != want.Tier || !got.Limited ||
			got.Buckets[0].Capacity != want.capacity || got.Places[0].MayHold != want.mayHold {
			t.Errorf("show %s: %+v, want %+v", args, got, want)
		}
		for _, b := range got.Buckets {
			if b.Shadow != (b.Policy == "tried") {
				t.Errorf("show %s: the shadow mode of %s is %v", args, b.Policy, b.Shadow)
			}
		}
		code, text, stderr := runCLI(t, environ, show...)
		head, _, _ := strings.Cut(text, "POLICY ")
		if code != exitOK || !strings.Contains(head, want.note) || strings.Contains(head, "denied") != want.Denied || strings.Contains(head, "exempt") != want.Exempt ||
			strings.Contains(head, "tier:") != (want.Tier != "") || strings.Count(head, "shadow") != 1 || strings.Contains(head, "RATE_LIMIT") {
			t.Errorf("show %s: exit code %d\n%s%s", args, code, text, stderr)
		}
	}
	off := append(environ, "RATE_LIMIT_ENABLED=false")
	if got := asJSON[caller](t, off, exitOK, "show", "--ip", "203.0.113.9"); got.Limited {
		t.Error("show says that limits are enabled")
	}
	if _, text, _ := runCLI(t, off, "show", "--ip", "203.0.113.9"); !strings.HasPrefix(text, "RATE_LIMIT_ENABLED=false: no bucket is asked\n") {
		t.Errorf("without limits show says\n%s", text)
	}
}

// TestNoSuchUser: an id that a gate takes for nobody's is a mistake, not a caller with full buckets.
func TestNoSuchUser(t *testing.T) {
	environ := []string{"QUEUE_URL=redis://127.0.0.1:1"} // nobody is asked
	for _, command := range []string{"show", "reset"} {
		for id, want := range map[string]string{
			"ann\n": "--user: no user has such an id", "a\x1b[31m": "--user: no user has such an id", "\xff": `the argument "\xff" is not UTF-8`,
			strings.Repeat("x", 257): "--user: no user has such an id",
		} {
			code, stdout, stderr := runCLI(t, environ, command, "--user", id)
			if code != exitUsage || stdout != "" || !strings.Contains(stderr, want) {
				t.Errorf("%s --user %.20q: exit code %d\n%s%s", command, id, code, stdout, stderr)
			}
		}
		if code, _, stderr := runCLI(t, environ, command, "--user", strings.Repeat("x", 256)); code != exitFailed {
			t.Errorf("%s with the longest id: exit code %d\n%s", command, code, stderr)
		}
	}
}

// TestReset: reset fills the buckets of the address and of the user that it is given, and no others.
func TestReset(t *testing.T) {
	server := redistest.Start(t)
	admin := server.Client(t)
	environ := []string{"QUEUE_URL=" + server.URL(), "POLICY_FILE=" + policyFile(t, `
policies:
  run: {match: [/run], buckets: [{per: ip, burst: 5, rate: 1/h}, {per: user, burst: 5, rate: 1/h, name: mine}, {per: all, burst: 5, rate: 1/h, name: everybody}]}
`)}
	type filled struct{ Policy, Bucket, Per string }
	type shown struct{ Buckets []struct{ Left int64 } }
	debt := func() { // an hour for each bucket
		must(t, admin.FlushAll(t.Context()).Err())
		addr, _ := gateAt(t, environ)
		asJSON[map[string]any](t, environ, exitOK, "check", "--addr", addr, "--ip", "1.2.3.4", "--user", "ann")
	}
	for args, want := range map[string]struct {
		left   string
		filled []filled
	}{
		"--ip 1.2.3.4":            {"5 4 4", []filled{{"run", "run", "ip"}}},
		"--ip ::ffff:1.2.3.4":     {"5 4 4", []filled{{"run", "run", "ip"}}},
		"--user ann":              {"4 5 4", []filled{{"run", "mine", "user"}}},
		"--user ann --verified":   {"4 4 4", []filled{{"run", "mine", "user"}}},
		"--ip 1.2.3.4 --user ann": {"5 5 4", []filled{{"run", "run", "ip"}, {"run", "mine", "user"}}},
	} {
		debt()
		got := asJSON[map[string][]filled](t, environ, exitOK, append([]string{"reset"}, strings.Fields(args)...)...)
		if !slices.Equal(got["full_again"], want.filled) || len(got) != 1 {
			t.Errorf("reset %s says %v", args, got)
		}
		after := asJSON[shown](t, environ, exitOK, "show", "--ip", "1.2.3.4", "--user", "ann")
		var left []string
		for _, b := range after.Buckets {
			left = append(left, fmt.Sprint(b.Left))
		}
		if strings.Join(left, " ") != want.left {
			t.Errorf("after reset %s there are %v tokens, want %s", args, left, want.left)
		}
	}
}

// TestCallersOutput: what others wrote into Redis does not reach the terminal as it is, and a key of another type is no bucket.
func TestCallersOutput(t *testing.T) {
	server := redistest.Start(t)
	admin := server.Client(t)
	environ := []string{"QUEUE_URL=" + server.URL(), "POLICY_FILE=" + policyFile(t, operatorPolicies)}
	if got := fmt.Sprint(asJSON[map[string]any](t, environ, exitOK, "callers")); got != "map[owed:[] places:[]]" {
		t.Errorf("while nobody owes anything, it prints %s", got)
	}
	debt := fmt.Sprint(time.Now().Add(time.Hour).UnixNano())
	for _, key := range []string{quota.Key("run", "ip:\x1b[2J"), quota.Key("r\nun", "ip:1.2.3.4"), quota.Key("run", "ip:2001:db8::/64")} {
		must(t, admin.Set(t.Context(), key, debt, 0).Err())
	}
	must(t, admin.HSet(t.Context(), quota.Key("run", "ip:hash"), "a", "b").Err())
	must(t, admin.ZAdd(t.Context(), "refrakt:gate:shares:default", redis.Z{Member: "ip:\x1b]0;", Score: 3}).Err())
	code, text, stderr := runCLI(t, environ, "callers")
	if code != exitOK || strings.Contains(text, "\x1b") || strings.Contains(text, "hash") {
		t.Fatalf("exit code %d\n%q\n%s", code, text, stderr)
	}
	for _, want := range []string{`"ip:\x1b[2J"`, `"r\nun"`, " ip:2001:db8::/64 ", `"ip:\x1b]0;"`} {
		if !strings.Contains(text, want) {
			t.Errorf("it has no %s:\n%s", want, text)
		}
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "ip:192.0.2.1": "ip:192.0.2.1", "Jürgen 東京": "Jürgen 東京", "a\tb": `"a\tb"`, "\x1b[31m": `"\x1b[31m"`, "\xff": `"\xff"`,
		"\u009b31m": `"\u009b31m"`, "\u202eevil": `"\u202eevil"`,
	} {
		if got := printable(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

// TestLongest: of many buckets, the longest are found, each once, whatever their order.
func TestLongest(t *testing.T) {
	const n, many = 3, 5000 // so many that memory is given back in between
	var seen []quota.Owing
	for i := range many {
		o := quota.Owing{Bucket: "run", Subject: fmt.Sprint("ip:", i), Debt: time.Duration(i) * time.Second}
		seen = append(seen, o)
		o.Debt -= time.Millisecond // seen again, later
		seen = append(seen, o)
	}
	for order, arrange := range map[string]func(){
		"falling": func() { slices.Reverse(seen) },
		"rising":  func() { slices.Reverse(seen) },
		"mixed": func() {
			rand.New(rand.NewPCG(1, 2)).Shuffle(len(seen), func(i, j int) { seen[i], seen[j] = seen[j], seen[i] })
		},
	} {
		arrange()
		in := &inspection{buckets: scanned{all: seen}}
		got, err := in.mostOwing(t.Context(), n)
		must(t, err)
		var callers []string
		for _, o := range got {
			callers = append(callers, o.Caller)
		}
		if fmt.Sprint(callers) != "[ip:4999 ip:4998 ip:4997]" {
			t.Errorf("%s: the longest are %v", order, got)
		}
	}
}

// scanned is a store in which a scan sees these buckets in this order.
type scanned struct {
	inspected

	all []quota.Owing
}

func (s scanned) Scan(_ context.Context, see func(quota.Owing)) error {
	for _, o := range s.all {
		see(o)
	}
	return nil
}
