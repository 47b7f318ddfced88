package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, name, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// accessLog has two requests of 203.0.113.9 and one of another address.
const accessLog = `{"time":"2026-11-26T10:00:00.000Z","method":"POST","path":"/run","verdict":"allow","reason":"ok","policy":"run","tier":"plain","ip":"ip:wi2wKE6zZyYaWBcXPck9Ew","user":null}
{"time":"2026-11-26T10:00:01.000Z","method":"POST","path":"/run","verdict":"allow","reason":"ok","policy":"run","tier":"plain","ip":"ip:wi2wKE6zZyYaWBcXPck9Ew","user":"user:SZFeDX1LQC4wF9AQvBwOgw"}
{"time":"2026-11-26T11:00:00.000Z","method":"POST","path":"/run","verdict":"deny","reason":"queue_full","policy":"run","tier":"plain","ip":"ip:other","user":null}
{"time":"2026-11-26T11:00:00.000Z","method":"GET","path":"/ping","verdict":null,"reason":null,"policy":null,"ip":null,"user":null}
`

// zipped is the log once more, as gzip.
func zipped(t *testing.T) (path string) {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(accessLog))
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return write(t, "access.log.gz", b.String())
}

// TestReplayOutput: the limits are those of the environment or of a file; an address or a user selects requests.
func TestReplayOutput(t *testing.T) {
	log := write(t, "access.log", accessLog)
	policies := write(t, "policies.yaml", "policies: {run: {match: [/run], buckets: [{per: ip, burst: 1, rate: 1/h}]}}")
	const all = `4 lines, 3 requests from 2026-11-26 10:00:00 to 2026-11-26 11:00:00 (UTC)
not used: 1 about which the gate was not asked
verdicts of the buckets as in the log: 1 of 2 (50.0 %)

POLICY  HOUR              REQUESTS  REFUSED     IN THE LOG  BY THE QUEUE  OTHERWISE
run     2026-11-26 10:00  2         1 (50.0 %)  0 (0.0 %)   0             0
run     2026-11-26 11:00  1         0 (0.0 %)   0 (0.0 %)   1             0
run     all               3         1 (33.3 %)  0 (0.0 %)   1             0

CALLER                       POLICY  REQUESTS  REFUSED      OWN BUCKET  IN THE LOG
ip:wi2wKE6zZyYaWBcXPck9Ew    run     2         1 (50.0 %)   1           0
user:SZFeDX1LQC4wF9AQvBwOgw  run     1         1 (100.0 %)  0           0
`
	if code, out, errs := runCLI(t, []string{"QUEUE_URL=redis://127.0.0.1:1", "RATE_LIMIT_RUN_BURST=1", "RATE_LIMIT_RUN_PER_MINUTE=1"}, "replay", log); code != 0 || out != all || errs != "" {
		t.Errorf("exit code %d, %s\n%s", code, errs, out)
	}
	for _, tt := range []struct{ args, want string }{
		{"--policy " + policies, "run     2026-11-26 11:00  1         0 (0.0 %)   0 (0.0 %)   1"},
		{"--ip 203.0.113.9", "run     2026-11-26 10:00  2         0 (0.0 %)"},
		{"--user ann", "run     2026-11-26 10:00  1         0 (0.0 %)"},
		{"-o json --policy " + policies, `"compared": 2,`},
		{"--by-path --policy " + write(t, "other.yaml", "policies: {run: {match: [/x], buckets: [{per: ip, burst: 1, rate: 1/h}]}, new: {match: [/run], buckets: [{per: ip, burst: 9, rate: 1/h}]}}"), "new     2026-11-26 10:00  2         0 (0.0 %)"},
		{zipped(t), "run     2026-11-26 10:00  4         0 (0.0 %)"},
		{write(t, "more.log", strings.ReplaceAll(accessLog, `"policy":"run"`, `"policy":"assistant"`)), "assistant  all               3         0"},
		{"-n 1 --policy " + policies, "ip:wi2wKE6zZyYaWBcXPck9Ew  run     2         1 (50.0 %)  1           0\n"},
	} {
		code, out, errs := runCLI(t, nil, append([]string{"replay", log}, strings.Fields(tt.args)...)...)
		if code != 0 || !strings.Contains(out, tt.want) {
			t.Errorf("%s: exit code %d, %s\n%s", tt.args, code, errs, out)
		}
	}
	if _, out, _ := runCLI(t, nil, "replay", log, "-n", "1", "--policy", policies); strings.Contains(out, "user:") {
		t.Errorf("two callers are shown:\n%s", out)
	}
}

// TestReplayMistakes: each mistake has an error that says what to do.
func TestReplayMistakes(t *testing.T) {
	log := write(t, "access.log", accessLog)
	line := func(from, to string) string {
		return write(t, "access.log", strings.ReplaceAll(strings.Split(accessLog, "\n")[0], from, to))
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "expected \"<log> ...\""},
		{[]string{"/nonexistent"}, 1, "open the access log: open /nonexistent: no such file"},
		{[]string{t.TempDir()}, 1, "read the access log: "},
		{[]string{write(t, "empty", "")}, 1, "the access log is empty"},
		{[]string{write(t, "text", "10.0.0.1 POST /run 200\n")}, 1, "no line is an access log's in JSON with a time"},
		{[]string{line(`"ip:wi2wKE6zZyYaWBcXPck9Ew"`, "null")}, 1, "add `ip` and `user` to Envoy's json_format"},
		{[]string{line(`"allow"`, "null")}, 1, "no line has a verdict of a gate"},
		{[]string{line("run", "other")}, 1, "no request falls under one of these policies"},
		{[]string{log, "--ip", "192.0.2.1"}, 1, "the access log has no request of such a caller"},
		{[]string{log, "--ip", "192.0.2"}, 2, `--ip: "192.0.2" is not an address`},
		{[]string{log, "--verified"}, 2, "say whom"},
		{[]string{log, "--top=0"}, 2, "--top: 0 is below 1"},
		{[]string{log, log}, 1, "is there twice"},
		{[]string{write(t, "broken.gz", "\x1f\x8bx")}, 1, "decompress: "},
		{[]string{log, "--policy", "/nonexistent"}, 2, "--policy: "},
		{[]string{log, "--policy", write(t, "p.yaml", "policies: {run: {}}\nqueue: {}\n")}, 2, "p.yaml:2:1: "},
	} {
		code, out, errs := runCLI(t, nil, append([]string{"replay"}, tt.args...)...)
		if code != tt.code || !strings.Contains(errs, tt.want) || out != "" {
			t.Errorf("%v: exit code %d, want %d and %q\n%s%s", tt.args, code, tt.code, tt.want, out, errs)
		}
	}
	if code, _, errs := runCLI(t, []string{"RATE_LIMIT_RUN_BURST=ten"}, "replay", log); code != 2 || !strings.Contains(errs, "RATE_LIMIT_RUN_BURST") {
		t.Errorf("exit code %d\n%s", code, errs)
	}
}
