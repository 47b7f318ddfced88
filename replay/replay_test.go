package replay_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/replay"
)

const policies = `
tiers: {premium: 2}
queues: {default: {max_pending: 40}}
policies:
  run:
    match: ["POST /run"]
    queue: default
    becomes_job: true
    buckets:
    - {per: ip, burst: 2, rate: 1/m}
    - {per: user, burst: 3, rate: 1/m, name: mine}
  plain: {match: [/plain], buckets: [{per: ip, burst: 2, rate: 1/m}]}
  free:
    match: [/free]
    buckets: [{per: all, burst: 1, rate: 1/h}]
`

func compile(t testing.TB, text string) *policy.Set {
	t.Helper()
	file, mistakes := policy.Parse([]byte(text))
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	return policy.Compile(file)
}

// request is a line of the log, at so many seconds after ten o'clock. more replaces fields.
func request(seconds float64, more ...string) string {
	fields := map[string]string{
		"time":   `"` + time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC).Add(time.Duration(seconds*1e9)).Format("2006-01-02T15:04:05.000Z") + `"`,
		"method": `"POST"`, "path": `"/run"`, "verdict": `"allow"`, "reason": `"ok"`, "policy": `"run"`, "tier": `"plain"`, "ip": `"ip:a"`, "gate_us": `"300"`,
	}
	for _, m := range more {
		key, value, _ := strings.Cut(m, "=")
		fields[key] = value
	}
	var parts []string
	for key, value := range fields {
		parts = append(parts, fmt.Sprintf("%q:%s", key, value))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func run(t *testing.T, only replay.Only, lines ...string) replay.Report {
	t.Helper()
	r := replay.New(compile(t, policies), false)
	if err := r.Read(strings.NewReader(strings.Join(lines, "\n"))); err != nil {
		t.Fatal(err)
	}
	return r.Run(only)
}

var limited = []string{`verdict="deny"`, `reason="rate_limited"`}

// TestBuckets: requests are charged to the buckets of their address, their user and their tier.
func TestBuckets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		lines   []string
		refused int
	}{
		{"burst", []string{request(0), request(1), request(2)}, 1},
		{"a token comes", []string{request(0), request(1), request(61)}, 0},
		{"another address", []string{request(0), request(1), request(2, `ip="ip:b"`)}, 0},
		{"one user, many addresses", []string{
			request(0, `ip="ip:1"`, `user="user:u"`), request(1, `ip="ip:2"`, `user="user:u"`),
			request(2, `ip="ip:3"`, `user="user:u"`), request(3, `ip="ip:4"`, `user="user:u"`),
		}, 1},
		{"a refusal costs nothing", []string{request(0), request(1), request(2), request(3), request(61), request(62)}, 3},
		{"tier", []string{request(0, `tier="premium"`), request(1, `tier="premium"`), request(2, `tier="premium"`), request(3, `tier="premium"`), request(4, `tier="premium"`)}, 1},
		{"unknown tier", []string{request(0, `tier="gold"`), request(1, `tier="gold"`), request(2, `tier="gold"`)}, 1},
		{"one bucket for all", []string{request(0, `policy="free"`), request(1, `policy="free"`, `ip="ip:b"`)}, 1},
		{"the log names the policy", []string{request(0, `path="/free"`), request(1, `path="/free"`), request(2, `path="/free"`)}, 1},
		{"a policy that is gone", []string{request(0, `policy="old"`), request(1, `policy="old"`), request(2, `policy="old"`)}, 1},
		{"written late", []string{request(61), request(0), request(1)}, 0},
		{"refused by the queue", []string{request(0), request(1, `verdict="deny"`, `reason="queue_full"`), request(2)}, 0},
		{"refused by the queue, but the policy has none now", []string{
			request(0, `policy="plain"`), request(1, `path="/plain"`, `policy="plain"`, `verdict="deny"`, `reason="queue_full"`), request(2, `policy="plain"`),
		}, 1},
		{"queue unknown", []string{request(0), request(1, `reason="queue_unknown"`), request(2)}, 1},
		{"queue unknown, of an exempt caller", []string{request(0), request(1, `reason="queue_unknown"`, `tier=""`), request(2)}, 0},
		{"exempt", []string{request(0), request(1, `reason="exempt"`, `tier=""`), request(2)}, 0},
		{"forbidden", []string{request(0), request(1, `verdict="deny"`, `reason="forbidden"`), request(2)}, 0},
		{"limiter unavailable", []string{request(0), request(1, `verdict="deny"`, `reason="limiter_unavailable"`), request(2)}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := run(t, replay.Only{}, tt.lines...)
			if len(r.Hours) != 1 || r.Hours[0].Refused != tt.refused || r.Hours[0].Requests != len(tt.lines) {
				t.Errorf("got %+v, want %d of %d refused", r.Hours, tt.refused, len(tt.lines))
			}
		})
	}
}

// TestReport: what is counted, by policy, hour and caller.
func TestReport(t *testing.T) {
	t.Parallel()
	lines := []string{
		request(0), request(1), request(2), request(3, limited...), // the third was let pass, by other limits
		request(4, append(limited, `ip="ip:b"`, `user="user:u"`)...),
		request(5, `verdict="deny"`, `reason="queue_slow"`),
		request(6, `verdict="deny"`, `reason="forbidden"`),
		request(3600, `ip="ip:b"`), request(0, `policy="free"`),
	}
	r := run(t, replay.Only{}, lines...)
	ten := time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)
	want := replay.Report{
		Lines: 9, From: ten, To: ten.Add(time.Hour), Compared: 7, Same: 5,
		Hours: []replay.Hour{
			{Policy: "run", Hour: ten, Counts: replay.Counts{Requests: 7, Refused: 2, Recorded: 2, Queue: 1, Other: 1}},
			{Policy: "run", Hour: ten.Add(time.Hour), Counts: replay.Counts{Requests: 1}},
			{Policy: "free", Hour: ten, Counts: replay.Counts{Requests: 1}},
		},
		Callers: []replay.Caller{
			{Caller: "ip:a", Policy: "run", Counts: replay.Counts{Requests: 6, Refused: 2, Recorded: 1, Queue: 1, Other: 1}, Own: 2},
			{Caller: "ip:b", Policy: "run", Counts: replay.Counts{Requests: 2, Recorded: 1}},
			{Caller: "user:u", Policy: "run", Counts: replay.Counts{Requests: 1, Recorded: 1}},
		},
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("got\n%+v\nwant\n%+v", r, want)
	}

	one := run(t, replay.Only{IP: "ip:b"}, lines...)
	if one.From != ten.Add(4*time.Second) || len(one.Hours) != 2 || one.Hours[0].Counts != (replay.Counts{Requests: 1, Recorded: 1}) || one.Compared != 2 {
		t.Errorf("of ip:b it says %+v", one)
	}
	if user := run(t, replay.Only{User: "user:u"}, lines...); len(user.Hours) != 1 || user.Hours[0].Requests != 1 {
		t.Errorf("of user:u it says %+v", user)
	}
	if none := run(t, replay.Only{IP: "ip:b", User: "user:other"}, lines...); len(none.Hours) != 0 {
		t.Errorf("of nobody it says %+v", none)
	}
}

// TestWhoseBucket: a refusal is for the bucket of the address, of the user, or of all.
func TestWhoseBucket(t *testing.T) {
	t.Parallel()
	own := func(r replay.Report) string {
		var all []string
		for _, c := range r.Callers {
			all = append(all, fmt.Sprint(c.Caller, " ", c.Own, "/", c.Refused))
		}
		return strings.Join(all, " ")
	}
	for _, tt := range []struct {
		lines []string
		want  string
	}{
		{[]string{request(0), request(1), request(2, `user="user:u"`)}, "ip:a 1/1 user:u 0/1"},
		{[]string{
			request(0, `ip="ip:1"`, `user="user:u"`), request(1, `ip="ip:2"`, `user="user:u"`),
			request(2, `ip="ip:3"`, `user="user:u"`), request(3, `ip="ip:4"`, `user="user:u"`),
		}, "ip:4 0/1 user:u 1/1"},
		{[]string{request(0, `policy="free"`), request(1, `policy="free"`)}, "ip:a 0/1"},
		{[]string{request(0), request(1), request(60.001, limited...)}, "ip:a 1/1"},
	} {
		if got := own(run(t, replay.Only{}, tt.lines...)); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

// TestUnused: each line that is not used is counted, with the reason.
func TestUnused(t *testing.T) {
	t.Parallel()
	r := run(t, replay.Only{},
		request(0),
		"envoy-1  | "+request(1),
		"", "[2026-11-26 10:00:00.000][1][info] starting", "{", request(2, `time="yesterday"`), request(2, `path="`+strings.Repeat("x", 300<<10)+`"`),
		request(3, "verdict=null"), request(3, "verdict=null", "policy=null"),
		request(4, `path="/other"`, `policy="none"`, "ip=null"), request(4, `method="GET"`, `policy="none"`, "ip=null"),
		request(5, "ip=null"),
		request(6)+strings.Repeat(" ", 20),
		request(7, `time="1969-12-31T23:59:59Z"`), request(7, `time="9999-01-01T00:00:00Z"`),
		strings.Repeat(" ", 300<<10)+request(7),
	)
	want := replay.Unused{Unreadable: 8, NotAsked: 2, NotGuarded: 2, NoCaller: 1}
	if r.Unused != want || r.Lines != 16 || r.Hours[0].Requests != 3 {
		t.Errorf("got %+v of %d lines, want %+v of 16", r.Unused, r.Lines, want)
	}
}

// TestWhenExactly: where a verdict depends on when exactly the gate decided, it is that of the log. In all other cases it
// is not.
func TestWhenExactly(t *testing.T) {
	t.Parallel()
	slow, refusedSlow := `gate_us="50000"`, append([]string{`gate_us="50000"`}, limited...)
	for _, tt := range []struct {
		name  string
		lines []string
		same  bool
	}{
		{"the token came while the gate decided", []string{request(0), request(1), request(59.96, slow)}, true},
		{"it came later", []string{request(0), request(1), request(59.9, slow)}, false},
		{"it came only after the decision", []string{request(0), request(1), request(60.001, limited...)}, true},
		{"it had come before", []string{request(0), request(1), request(60.1, limited...)}, false},
		{"the bucket was full for longer", []string{request(0, slow), request(1), request(60.04, limited...)}, true},
		{"so too if it was full again", []string{request(0), request(100, slow), request(101), request(160.04, limited...)}, true},
		{"but not for as long", []string{request(0, slow), request(1), request(60.1, limited...)}, false},
		{"the last token, in another order than in the log", []string{request(0), request(1, limited...), request(1, `ip="ip:a"`)}, true},
		{"so too if the gate took longer", []string{request(0), request(1, refusedSlow...), request(1.04)}, true},
		{"the token of such a refusal is there for the next", []string{request(0), request(1), request(60.001, limited...), request(60.2)}, true},
		{"limited in shadow mode", []string{request(0), request(1), request(2, `reason="rate_limited"`, "shadow=true")}, true},
		{"in the order of the log", []string{request(0), request(1, limited...), request(1.04)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if r := run(t, replay.Only{}, tt.lines...); (r.Same == r.Compared) != tt.same {
				t.Errorf("%d of %d are as in the log", r.Same, r.Compared)
			}
		})
	}
}

// TestByPath: where the policies of the log are not those of the paths, the caller of New chooses.
func TestByPath(t *testing.T) {
	t.Parallel()
	for byPath, want := range map[bool]string{false: "run", true: "free"} {
		r := replay.New(compile(t, policies), byPath)
		if err := r.Read(strings.NewReader(request(0, `path="/free"`))); err != nil {
			t.Fatal(err)
		}
		if report := r.Run(replay.Only{}); report.Hours[0].Policy != want {
			t.Errorf("by path %v: %s, want %s", byPath, report.Hours[0].Policy, want)
		}
	}
}

// TestNotCompared: requests are charged, but say nothing about the buckets of the time, if these were not asked or if
// the log has another reason before theirs.
func TestNotCompared(t *testing.T) {
	t.Parallel()
	r := run(t, replay.Only{}, request(0), request(1, `reason="queue_full"`, "shadow=true"), request(2, `reason="limiter_unavailable"`),
		request(3, `verdict="deny"`, `reason="queue_share"`), request(4, `reason="not_guarded"`))
	if c := r.Hours[0].Counts; r.Compared != 1 || c.Refused != 2 || c.Queue != 1 || c.Other != 0 {
		t.Errorf("%+v", r)
	}
}

// TestForms: lines as programs write them that collect logs.
func TestForms(t *testing.T) {
	t.Parallel()
	plain := request(0)
	for name, line := range map[string]string{
		"plain": plain, "CRLF": plain + "\r", "Compose": "envoy-1  | " + plain, "CRI": "2026-11-26T10:00:00.1Z stdout F " + plain,
		"braces": "{envoy} " + plain, "json-file": fmt.Sprintf(`{"log":%q,"stream":"stdout","time":"2020-01-01T00:00:00Z"}`, plain+"\n"),
		"microseconds": strings.Replace(plain, ".000Z", ".000123Z", 1), "another zone": strings.Replace(plain, "10:00:00.000Z", "15:30:00.000+05:30", 1),
	} {
		r := run(t, replay.Only{}, line)
		if want := time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC); len(r.Hours) != 1 || r.From.Truncate(time.Second) != want {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestOtherLimits: with limits that are not the recorded ones, the log's verdicts do not count. As many requests are
// refused as by a bucket that is computed in another way; that bucket knows when exactly each request was decided.
func TestOtherLimits(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(7, 7))
	for range 60 {
		recorded, other := bucket{1 + random.IntN(10), 0.1 * math.Pow(10, 4*random.Float64())}, bucket{1 + random.IntN(10), 0.1 * math.Pow(10, 4*random.Float64())}
		pace, took := 0.001+random.ExpFloat64()*0.1, []int{300, 3000, 50_000}[random.IntN(3)]
		at, tokens, want, last := 0.0, [2]float64{float64(recorded.burst), float64(other.burst)}, 0, 0.0
		var lines []string
		for range 2000 {
			at += random.ExpFloat64() * pace
			decided := at + random.Float64()*float64(took)*1e-6
			decided = max(decided, last)
			for i, b := range []bucket{recorded, other} {
				tokens[i] = min(float64(b.burst), tokens[i]+(decided-last)*b.perSecond)
			}
			last = decided
			line := []string{fmt.Sprintf(`gate_us="%d"`, took)}
			if tokens[0] >= 1 {
				tokens[0]--
			} else {
				line = append(line, limited...)
			}
			if tokens[1] >= 1 {
				tokens[1]--
			} else {
				want++
			}
			lines = append(lines, request(at, line...))
		}
		r := replay.New(compile(t, fmt.Sprintf("policies: {run: {match: [/run], buckets: [{per: ip, burst: %d, rate: %d/d}]}}", other.burst, int(other.perSecond*86400))), false)
		if err := r.Read(strings.NewReader(strings.Join(lines, "\n"))); err != nil {
			t.Fatal(err)
		}
		got := r.Run(replay.Only{}).Hours[0].Refused
		// A token can be missed or taken early for a tenth of its time.
		passed := float64(2000 - want)
		if math.Abs(float64(got-want)) > 3+0.1*passed {
			t.Errorf("recorded %+v, other %+v, every %.3f s, gate %d µs: %d refused, want %d", recorded, other, pace, took, got, want)
		}
	}
}

// TestNoTokenForNothing: a caller whom the log let pass whenever it came gets no more tokens than there are, though a
// token may come early.
func TestNoTokenForNothing(t *testing.T) {
	t.Parallel()
	r := replay.New(compile(t, "policies: {run: {match: [/run], buckets: [{per: ip, burst: 1, rate: 10/s}]}}"), false)
	var lines []string
	for ms := range 5000 {
		lines = append(lines, request(float64(ms)/1000, `gate_us="50000"`))
	}
	if err := r.Read(strings.NewReader(strings.Join(lines, "\n"))); err != nil {
		t.Fatal(err)
	}
	c := r.Run(replay.Only{}).Hours[0].Counts
	if passed := c.Requests - c.Refused; passed < 49 || passed > 51 { // one at once, and ten a second
		t.Errorf("%d passed in 5 s", passed)
	}
}

type bucket struct {
	burst     int
	perSecond float64
}

// TestSeveralLogs: the requests of several logs are taken in the order of their times.
func TestSeveralLogs(t *testing.T) {
	t.Parallel()
	r := replay.New(compile(t, policies), false)
	for _, log := range []string{request(0) + "\n" + request(60.5), request(1) + "\n" + request(2, limited...)} {
		if err := r.Read(strings.NewReader(log)); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.Run(replay.Only{}); got.Lines != 4 || got.Same != 4 {
		t.Errorf("%+v", got)
	}
}

// FuzzRead: no line makes Read fail, and each is counted.
func FuzzRead(f *testing.F) {
	f.Add(request(0))
	f.Add("{}\nx\n\n" + request(1, "time=1"))
	set := compile(f, policies)
	f.Fuzz(func(t *testing.T, log string) {
		r := replay.New(set, false)
		if err := r.Read(strings.NewReader(log)); err != nil {
			t.Fatal(err)
		}
		report := r.Run(replay.Only{})
		used := 0
		for _, h := range report.Hours {
			used += h.Requests
		}
		u := report.Unused
		if sum := used + u.Unreadable + u.NotAsked + u.NotGuarded + u.NoCaller; sum != report.Lines {
			t.Errorf("%d lines, %d counted: %+v", report.Lines, sum, report)
		}
	})
}
