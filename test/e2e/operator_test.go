package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// shown is a bucket as `show -o json` prints it.
type shown struct {
	Policy, Bucket, Per string
	Left, Capacity      int64
	Next                float64 `json:"next_token_seconds"`
	Full                float64 `json:"full_seconds"`
}

// held is what a caller has of a queue, as `show -o json` prints it.
type held struct {
	Queue   string
	Held    int
	MayHold int `json:"may_hold"`
}

func show(t *testing.T, settings map[string]string, args ...string) ([]shown, []held) {
	t.Helper()
	code, out := e2e.RunGate(t, settings, append([]string{"show", "-o", "json"}, args...)...)
	var all struct {
		Buckets []shown
		Places  []held
	}
	if err := json.Unmarshal([]byte(out), &all); code != 0 || err != nil || all.Buckets == nil || all.Places == nil {
		t.Fatalf("show %v: exit code %d, %v\n%s", args, code, err, out)
	}
	return all.Buckets, all.Places
}

// TestOperator: what the commands for operators say of a caller is what a gate does with its requests. They take no token.
func TestOperator(t *testing.T) {
	t.Parallel()
	policies := filepath.Join(t.TempDir(), "policies.yaml")
	const text = `
tiers: {premium: 2}
queues: {default: {max_pending: 40, max_age: 0s}}
policies:
  run:
    match: [/run]
    queue: default
    becomes_job: true
    buckets:
    - {per: ip, burst: 3, rate: 1/h}
    - {per: user, burst: 5, rate: 1/h, name: mine}
  all:
    match: [/all]
    buckets: [{per: all, burst: 100, rate: 1/h}]
`
	if err := os.WriteFile(policies, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, redis := range map[string]map[string]string{
		"server":  {"QUEUE_URL": redistest.Start(t).URL()},
		"cluster": {"QUEUE_URL": redistest.Start(t).URL(), "RATE_LIMIT_REDIS_URL": redistest.StartCluster(t, 3, false).URL(), "REDIS_TIMEOUT": "5s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings := maps.Clone(redis)
			settings["POLICY_FILE"] = policies
			gate := e2e.StartGate(t, settings)
			ask := func(args ...string) (int, string) {
				return e2e.RunGate(t, settings, append([]string{"check", "--timeout", "20s"}, args...)...)
			}
			charged := []string{"--addr", gate.GRPC, "--ip", "203.0.113.9", "--user", "ann"}
			dry := []string{"--dry-run", "--ip", "203.0.113.9", "--user", "ann"}
			who := []string{"--ip", "203.0.113.9", "--user", "ann"}

			for taken := range int64(4) {
				buckets, places := show(t, settings, who...)
				if len(places) > 0 {
					t.Errorf("a queue without a fair share knows whose its jobs are: %v", places)
				}
				want := []shown{
					{Policy: "run", Bucket: "run", Per: "ip", Left: 3 - taken, Capacity: 3},
					{Policy: "run", Bucket: "mine", Per: "user", Left: 5 - taken, Capacity: 5},
					{Policy: "all", Bucket: "all", Per: "all", Left: 100, Capacity: 100},
				}
				if !slices.EqualFunc(buckets, want, func(a, b shown) bool {
					a.Next, a.Full = 0, 0
					return a == b
				}) {
					t.Errorf("after %d requests it shows %+v", taken, buckets)
				}
				if b := buckets[0]; (taken == 3) != (b.Next > 3500 && b.Next <= 3600) || b.Full > 3600*float64(taken) || b.Full < 3600*float64(taken)-100 {
					t.Errorf("after %d requests, the next token is there in %v s, and all are in %v s", taken, b.Next, b.Full)
				}
				dryCode, dryOut := ask(dry...)
				code, out := ask(charged...)
				first, _, _ := strings.Cut(out, "\n")
				if dryFirst, _, _ := strings.Cut(dryOut, "\n"); dryCode != code || dryFirst != first {
					t.Errorf("after %d requests a dry run says %d\n%s\nthe gate says %d\n%s", taken, dryCode, dryOut, code, out)
				}
				if wanted := taken < 3; wanted != (code == 0) {
					t.Fatalf("after %d requests: exit code %d\n%s", taken, code, out)
				}
				if row := strings.Join([]string{"run", "run", "ip"}, " "); !strings.Contains(strings.Join(strings.Fields(dryOut), " "), row) {
					t.Errorf("the dry run shows no bucket:\n%s", dryOut)
				}
			}
			// It owes three hours. By the limit of premium that is six tokens, and one more comes each half hour.
			premium, _ := show(t, settings, "--ip", "203.0.113.9", "--tier", "premium")
			if b := premium[0]; b.Left != 0 || b.Capacity != 6 || b.Next < 1700 || b.Next > 1800 {
				t.Errorf("as premium it shows %+v", b)
			}
			verified, _ := show(t, settings, "--user", "ann", "--verified")
			if b := verified[0]; b.Left != 5 {
				t.Errorf("a verified user has the bucket of a claimed one: %+v", b)
			}

			if code, out := e2e.RunGate(t, settings, "reset", "--ip", "203.0.113.9"); code != 0 || !strings.Contains(out, "full again: run per ip.") {
				t.Errorf("reset: exit code %d\n%s", code, out)
			}
			if b, _ := show(t, settings, who...); b[0].Left != 3 || b[0].Full != 0 || b[1].Left != 2 {
				t.Errorf("after the reset of the address it shows %+v", b)
			}
			polltest.Until(t, 20*time.Second, "the gate to let the caller pass again", func() error {
				if code, out := ask(charged...); code != 0 {
					return errString(out)
				}
				return nil
			})
		})
	}
}

type errString string

func (e errString) Error() string { return string(e) }

// TestOperatorMistakes: the commands for operators say what is missing or wrong, and exit with 2.
func TestOperatorMistakes(t *testing.T) {
	t.Parallel()
	gone := map[string]string{"QUEUE_URL": "redis://:secret@127.0.0.1:1"}
	for _, tt := range []struct {
		settings map[string]string
		args     string
		code     int
		want     string
	}{
		{gone, "show", 2, "say whom: --ip, --user or both"},
		{gone, "reset", 2, "say whom: --ip, --user or both"},
		{gone, "show --ip 203.0.113", 2, `--ip: "203.0.113" is not an address`},
		{gone, "show --ip 203.0.113.9 --verified", 2, "--verified says something of --user"},
		{gone, "show --ip 203.0.113.9 --tier gold", 2, `--tier: the policies have no tier "gold"`},
		{gone, "show --ip 203.0.113.9", 1, "read buckets: "},
		{gone, "reset --ip 203.0.113.9", 1, "fill buckets: "},
		{gone, "check --dry-run", 2, "look: "},
		{gone, "check --dry-run --addr 127.0.0.1:1", 2, "with --dry-run no gate is asked"},
		{gone, "check --dry-run --tls-ca ca.crt", 2, "with --dry-run no gate is asked"},
		{gone, "check --dry-run --tls-server-name gate", 2, "with --dry-run no gate is asked"},
		{gone, "check --dry-run --tls-cert tls.crt --tls-key tls.key", 2, "with --dry-run no gate is asked"},
		{nil, "show --ip 203.0.113.9", 2, "the buckets of such a gate are in its memory"},
		{nil, "check --dry-run", 2, "the buckets of such a gate are in its memory"},
		{map[string]string{"QUEUE_URL": "redis://127.0.0.1:1", "POLICY_FILE": "/nonexistent"}, "show --user ann", 2, "bad settings:\n  POLICY_FILE: "},
	} {
		code, out := e2e.RunGate(t, tt.settings, strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(out, tt.want) || strings.Contains(out, "secret") {
			t.Errorf("%s: exit code %d, want %d and %q\n%s", tt.args, code, tt.code, tt.want, out)
		}
	}
}

// TestSupportDoc runs the commands of docs/support.md one after the other, on a gate that has seen what the document
// tells of. Their output is that of the document, but for times. Then it runs those of the runbook, which all succeed.
func TestSupportDoc(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(e2e.Root(), "docs", "support.md"))
	if err != nil {
		t.Fatal(err)
	}
	policies := filepath.Join("testdata", "support.yaml")
	settings := map[string]string{"QUEUE_URL": redistest.Start(t).URL(), "POLICY_FILE": policies, "QUEUE_ADMISSION_WINDOW": "1m"}
	gate := e2e.StartGate(t, settings)
	for i := range 10 {
		args := []string{"check", "--addr", gate.GRPC, "--ip", "203.0.113.9", "--timeout", "20s"}
		if i == 0 {
			args = append(args, "--user", "ann")
		}
		if code, out := e2e.RunGate(t, settings, args...); code != 0 {
			t.Fatalf("request %d: exit code %d\n%s", i, code, out)
		}
	}
	times := regexp.MustCompile(`in [0-9.ms]+`)
	plain := func(s string) string { return strings.Join(strings.Fields(times.ReplaceAllString(s, "in T")), " ") }
	played := 0
	for _, block := range regexp.MustCompile("(?s)```\n\\$ refrakt-gate ([^\n]+)\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		played++
		_, out := e2e.RunGate(t, settings, files(block[1])...)
		for want := range strings.SplitSeq(block[2], "…") { // what the document leaves out
			if !strings.Contains(plain(out), plain(want)) {
				t.Errorf("refrakt-gate %s says\n%s\nthe document has\n%s", block[1], out, want)
			}
		}
	}
	if played != 6 {
		t.Errorf("%d commands were played, want 6", played)
	}

	text, err = os.ReadFile(filepath.Join(e2e.Root(), "docs", "runbook.md"))
	if err != nil {
		t.Fatal(err)
	}
	run := map[string]bool{}
	for _, line := range regexp.MustCompile("(?m)(?:^|`)refrakt-gate ([^`\n]+)").FindAllStringSubmatch(string(text), -1) {
		words := files(line[1])
		if run[line[1]] {
			continue
		}
		run[line[1]], run[words[0]] = true, true
		if code, out := e2e.RunGate(t, settings, words...); code != 0 {
			t.Errorf("refrakt-gate %s: exit code %d\n%s", line[1], code, out)
		}
	}
	for _, command := range []string{"callers", "show", "check", "reset", "config", "replay"} {
		if !run[command] {
			t.Errorf("the runbook does not use refrakt-gate %s", command)
		}
	}
}

// files are the words of a command, with the files of testdata in place of those that a document names.
func files(command string) []string {
	words := strings.Fields(command)
	for i, w := range words {
		if w == "access.log" || w == "raised.yaml" {
			words[i] = filepath.Join("testdata", w)
		}
	}
	return words
}

// TestCallers: who owes most comes first, and so does who has most places in the queue. `show` has the places of one caller.
func TestCallers(t *testing.T) {
	t.Parallel()
	policies := filepath.Join(t.TempDir(), "policies.yaml")
	const text = `
tiers: {premium: 2}
queues: {default: {max_pending: 50, max_age: 0s, fair_share: 0.5, reserve: {tiers: [premium], share: 0.2}}}
policies:
  run: {match: [/run], queue: default, becomes_job: true, buckets: [{per: ip, burst: 30, rate: 1/h}, {per: user, burst: 30, rate: 1/h, name: mine}]}
`
	if err := os.WriteFile(policies, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{"QUEUE_URL": redistest.Start(t).URL(), "POLICY_FILE": policies, "QUEUE_ADMISSION_WINDOW": "1m"}
	gate := e2e.StartGate(t, settings)
	for _, ip := range []string{"203.0.113.1", "203.0.113.2", "203.0.113.1", "203.0.113.1", "203.0.113.2"} {
		if code, out := e2e.RunGate(t, settings, "check", "--addr", gate.GRPC, "--ip", ip, "--user", "u"+ip, "--timeout", "20s"); code != 0 {
			t.Fatalf("exit code %d\n%s", code, out)
		}
	}
	type owed struct {
		Bucket, Caller string
		Full           float64 `json:"full_seconds"`
	}
	var most struct {
		Owed   []owed
		Places []struct {
			Queue, Caller string
			Places        int64
		}
	}
	callers := func(args ...string) string {
		code, out := e2e.RunGate(t, settings, append([]string{"callers"}, args...)...)
		if code != 0 {
			t.Fatalf("exit code %d\n%s", code, out)
		}
		return out
	}
	if err := json.Unmarshal([]byte(callers("-o", "json", "-n", "3")), &most); err != nil {
		t.Fatal(err)
	}
	if len(most.Owed) != 3 || most.Owed[0].Full < most.Owed[1].Full || most.Owed[1].Full < 3*3600-100 || most.Owed[2].Full > 2*3600 {
		t.Errorf("it shows %+v", most.Owed)
	}
	for i, o := range most.Owed {
		if strings.HasPrefix(o.Caller, "ip:") != (o.Bucket == "run") || i < 2 && o.Bucket == "run" && o.Caller != "ip:203.0.113.1" || strings.Contains(o.Caller, "u203") {
			t.Errorf("bucket %d is %+v", i, o)
		}
	}
	if got := fmt.Sprint(most.Places); got != "[{default ip:203.0.113.1 3} {default ip:203.0.113.2 2}]" {
		t.Errorf("the places are %s", got)
	}
	if out := strings.Join(strings.Fields(callers()), " "); !strings.Contains(out, "run ip:203.0.113.1 in 2h59m") || !strings.HasSuffix(out, "QUEUE CALLER PLACES default ip:203.0.113.1 3 default ip:203.0.113.2 2") {
		t.Errorf("it prints\n%s", out)
	}
	// 5 of 40 places are taken, and half of those that one more job leaves are a share.
	for args, want := range map[string]string{
		"--ip 203.0.113.1":                       "[{default 3 17}]",
		"--ip 203.0.113.2 --user u203.0.113.2":   "[{default 2 17}]", // a user that is only claimed has no share
		"--ip 203.0.113.3":                       "[{default 0 17}]",
		"--ip 203.0.113.3 --tier premium":        "[{default 0 22}]",
		"--ip 203.0.113.1 --user ann --verified": "[{default 0 17}]",
		"--user u203.0.113.1":                    "[]", // whose address is not known
	} {
		if _, places := show(t, settings, strings.Fields(args)...); fmt.Sprint(places) != want {
			t.Errorf("show %s: the places are %v, want %s", args, places, want)
		}
	}
	if code, out := e2e.RunGate(t, settings, "show", "--ip", "203.0.113.1"); code != 0 || !strings.HasSuffix(out, "\n\nQUEUE    PLACES HELD  MAY HOLD\ndefault  3            17\n") {
		t.Errorf("show: exit code %d\n%s", code, out)
	}
	if code, out := e2e.RunGate(t, settings, "callers", "-n", "0"); code != 2 || !strings.Contains(out, "--top: 0 is not between") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}
