package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
	"github.com/refrakt-hub/refrakt-gate/policy"
)

// policyFile writes a policy file and returns its path.
func policyFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policies.yaml")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

const onePolicy = "policies: {chat: {match: [/chat], buckets: [{per: ip, burst: 5, rate: 5/m}]}}\n"

// TestPolicyFileMistakes: mistakes in the file, and in the settings beside it, come at once, with their place.
func TestPolicyFileMistakes(t *testing.T) {
	const withQueue = "queues: {default: {max_pending: 40}}\npolicies: {chat: {match: [/chat], queue: default}}\n"
	const withUser = onePolicy + "callers: [{user: ann, then: deny}]\n"
	for name, tt := range map[string]struct {
		text    string
		environ []string
		want    []string // lines
	}{
		"in the file": {"policies: {chat: {match: [/chat], bucket: []}}\n", []string{"LOG_LEVEL=loud"},
			[]string{`policies.yaml:1:35: "chat": unknown key "bucket"; did you mean buckets?`, `policies.yaml:1:12: "chat": has neither buckets nor a queue`, "LOG_LEVEL: "}},
		"replaced settings": {onePolicy, []string{"RATE_LIMIT_RUN_BURST=10", "QUEUE_MAX_PENDING=40", "SWITCHES_FILE=/x", "QUEUE_SHADOW=run", "QUEUE_NAME=", "RATE_LIMIT_FALLBACK_SHARE=1"},
			[]string{"RATE_LIMIT_RUN_BURST: unset it", "QUEUE_MAX_PENDING: unset it", "SWITCHES_FILE: unset it", "QUEUE_SHADOW: unset it"}},
		"a queue without Redis": {withQueue, nil, []string{"policies.yaml has queues: set QUEUE_URL"}},
		"users without tokens":  {withUser, nil, []string{"policies.yaml has callers by user, which are verified users: add jwt to USER_ID_SOURCES"}},
		"all is well":           {withQueue, []string{"QUEUE_URL=redis://localhost"}, nil},
		"users of tokens":       {withUser, []string{"USER_ID_SOURCES=jwt"}, nil},
		"no file of that name":  {"", []string{"POLICY_FILE=/does/not/exist"}, []string{"POLICY_FILE: stat /does/not/exist: no such file or directory"}},
		"a setting that is a typo": {onePolicy, []string{"RATE_LIMIT_SHADOW=perhaps"},
			[]string{"RATE_LIMIT_SHADOW: unset it", `RATE_LIMIT_SHADOW: "perhaps" is neither`}},
	} {
		path := policyFile(t, tt.text)
		code, stdout, stderr := runCLI(t, append([]string{"POLICY_FILE=" + path}, tt.environ...), "config")
		if want := map[bool]int{true: exitUsage, false: exitOK}[tt.want != nil]; code != want {
			t.Errorf("%s: exit %d, want %d:\n%s%s", name, code, want, stdout, stderr)
		}
		for _, want := range tt.want {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: no %q in:\n%s", name, want, stderr)
			}
		}
		if n := strings.Count(stderr, "\n  "); n != len(tt.want) {
			t.Errorf("%s: %d mistakes, want %d:\n%s", name, n, len(tt.want), stderr)
		}
	}
}

// TestReplacedSettings: none of the settings that a policy file stands for may be set beside it.
func TestReplacedSettings(t *testing.T) {
	path := policyFile(t, onePolicy)
	params, err := env.GetFieldParams(new(policy.Environment))
	must(t, err)
	names := []string{"SWITCHES_FILE"}
	for _, p := range params {
		names = append(names, p.Key)
	}
	if len(names) < 10 {
		t.Fatalf("only %v", names)
	}
	for _, name := range names {
		if name == "" {
			continue
		}
		_, _, stderr := runCLI(t, []string{"POLICY_FILE=" + path, name + "=1"}, "config")
		if !strings.Contains(stderr, "\n  "+name+": unset it: POLICY_FILE is set") {
			t.Errorf("%s beside POLICY_FILE: %s", name, stderr)
		}
	}
}

// TestConfigOfAPolicyFile: config says what the policies mean and prints no setting that the file stands for; what it
// prints is a valid environment.
func TestConfigOfAPolicyFile(t *testing.T) {
	path := policyFile(t, onePolicy)
	code, stdout, stderr := runCLI(t, []string{"POLICY_FILE=" + path}, "config")
	if code != exitOK || !strings.Contains(stdout, "POLICY_FILE="+path+"\n") || !strings.Contains(stdout, "# chat: each client IP: 5 at once, then 5 a minute\n") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	var environ []string
	for line := range strings.Lines(stdout) {
		if !strings.HasPrefix(line, "#") {
			environ = append(environ, strings.TrimSpace(line))
		}
	}
	if _, errs := loadConfig(toMap(environ)); len(errs) > 0 {
		t.Errorf("the printed settings are not valid: %v", errs)
	}
}

// TestAsPolicies: what config prints as a file is the preset, and is read back as the same.
func TestAsPolicies(t *testing.T) {
	environ := []string{"QUEUE_URL=redis://localhost", "RATE_LIMIT_RUN_BURST=7", "QUEUE_SHADOW=run", "QUEUE_NAME=jobs", "RATE_LIMIT_PREMIUM_MULTIPLIER=2.5"}
	code, stdout, stderr := runCLI(t, environ, "config", "--as-policies")
	if code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	path := policyFile(t, stdout)
	code, again, stderr := runCLI(t, []string{"QUEUE_URL=redis://localhost", "POLICY_FILE=" + path}, "config", "--as-policies")
	if code != exitOK || again != stdout || !strings.Contains(stdout, "burst: 7") || !strings.Contains(stdout, "shadow: queue") {
		t.Errorf("exit %d: %s\nprinted\n%s\nand then\n%s", code, stderr, stdout, again)
	}
	if code, schema, _ := runCLI(t, []string{"QUEUE_URL=nonsense"}, "config", "--policy-schema"); code != exitOK || schema != string(policy.Schema) || len(schema) < 100 {
		t.Errorf("exit %d, %d bytes of schema", code, len(schema))
	}
	if code, _, stderr := runCLI(t, nil, "config", "--policy-schema", "--as-policies"); code != exitUsage {
		t.Errorf("both: exit %d: %s", code, stderr)
	}
}

// TestAskingNeedsNoPolicies: a policy file with a mistake does not keep the commands that ask a running gate from asking.
func TestAskingNeedsNoPolicies(t *testing.T) {
	environ := []string{"POLICY_FILE=" + policyFile(t, "nonsense"), "TELEMETRY_ADDR=127.0.0.1:1", "GRPC_ADDR=127.0.0.1:1"}
	for _, args := range [][]string{{"healthcheck"}, {"check", "--timeout", "200ms"}} {
		if _, _, stderr := runCLI(t, environ, args...); !strings.Contains(stderr, "ask the gate at 127.0.0.1:1") {
			t.Errorf("%s: %s", args, stderr)
		}
	}
}

// reloads is a reloader of a file that a test writes, and what it has put in force.
type reloads struct {
	*reloader

	path string
	put  []string // the first policy's name
	log  *bytes.Buffer
	reg  *prometheus.Registry
}

func newReloads(t *testing.T, path string) *reloads {
	t.Helper()
	cfg, errs := loadConfig(map[string]string{"POLICY_FILE": path})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	r := &reloads{path: path, log: new(bytes.Buffer), reg: prometheus.NewRegistry()}
	put := func(f *policy.File) { r.put = append(r.put, f.Policies[0].Name) }
	r.reloader = newReloader(cfg, put, r.reg, slog.New(slog.NewTextHandler(r.log, nil)))
	return r
}

func (r *reloads) want(t *testing.T, what string, put []string, good bool) {
	t.Helper()
	if fmt.Sprint(r.put) != fmt.Sprint(put) {
		t.Errorf("%s: in force %v, want %v", what, r.put, put)
	}
	if got := metrictest.Value(t, r.reg, "refrakt_gate_policy_reload_successful"); (got == 1) != good || (r.broken.Load() == nil) != good {
		t.Errorf("%s: metric %v, want success %v", what, got, good)
	}
}

func (r *reloads) write(t *testing.T, text string) {
	t.Helper()
	must(t, os.WriteFile(r.path+".new", []byte(text), 0o600))
	must(t, os.Rename(r.path+".new", r.path))
}

func named(name string) string { return strings.Replace(onePolicy, "chat", name, 1) }

// TestReload: another file counts at the second look, a broken one changes nothing and is reported, and so is one that
// is gone. SIGHUP needs no second look.
func TestReload(t *testing.T) {
	r := newReloads(t, policyFile(t, named("a")))
	looks := func(n int) {
		for range n {
			r.look()
		}
	}
	looks(3)
	r.want(t, "nothing has changed", nil, true)

	r.write(t, named("b"))
	looks(1)
	r.want(t, "it may still be written", nil, true)
	looks(1)
	r.want(t, "the second look", []string{"b"}, true)
	began := metrictest.Value(t, r.reg, "refrakt_gate_policy_reload_success_timestamp_seconds")
	if age := float64(time.Now().UnixMilli())/1000 - began; age < -1 || age > 60 {
		t.Errorf("the last success was %v s ago", age)
	}

	r.write(t, "policies: {c: {match: [/c], bukets: []}}\n")
	looks(3)
	r.want(t, "a broken file", []string{"b"}, false)
	if n := strings.Count(r.log.String(), "level=WARN"); n != 1 || !strings.Contains(r.log.String(), "policies.yaml:1:") || !strings.Contains(r.log.String(), "bukets") {
		t.Errorf("logged %d times:\n%s", n, r.log)
	}
	if got := metrictest.Value(t, r.reg, "refrakt_gate_policy_reload_success_timestamp_seconds"); got != began {
		t.Errorf("the time of the last success moved by %v s", got-began)
	}

	r.write(t, "policies: {c: {match: [c], buckets: []}}\n")
	looks(2)
	if !strings.Contains(r.log.String(), "the path does not begin with /") {
		t.Errorf("another mistake, a moment later, is not logged:\n%s", r.log)
	}

	r.write(t, named("b"))
	looks(2)
	r.want(t, "as before", []string{"b"}, true)

	must(t, os.Remove(r.path))
	looks(1)
	r.want(t, "no file", []string{"b"}, false)
	r.write(t, named("d"))
	r.reload()
	r.want(t, "SIGHUP", []string{"b", "d"}, true)
	if got := metrictest.Value(t, r.reg, "refrakt_gate_policy_reload_success_timestamp_seconds"); got <= began {
		t.Errorf("the time of the last success is still %v", got)
	}
	looks(2)
	r.want(t, "what SIGHUP has read", []string{"b", "d"}, true)
}

// TestReloadWarns: what a file may say, but hardly means, is logged.
func TestReloadWarns(t *testing.T) {
	r := newReloads(t, policyFile(t, named("a")))
	r.write(t, "policies: {a: {match: [/a], buckets: [{per: user, burst: 1, rate: 1/m}]}}\n")
	r.reload()
	if want := "POLICY_FILE may not say what is meant: policy a limits users only"; !strings.Contains(r.log.String(), want) {
		t.Errorf("no %q in:\n%s", want, r.log)
	}
}

// TestReloadOfAFileThatWasAway: a file that was away for a moment counts again, though it is the same.
func TestReloadOfAFileThatWasAway(t *testing.T) {
	r := newReloads(t, policyFile(t, named("a")))
	r.look()
	r.look()
	away := r.path + ".away"
	must(t, os.Rename(r.path, away))
	r.reload()
	r.want(t, "away", nil, false)
	must(t, os.Rename(away, r.path))
	r.look()
	r.look()
	r.want(t, "back again", nil, true)

	must(t, os.Remove(r.path))
	must(t, os.Mkdir(r.path, 0o700))
	r.look()
	r.look()
	r.want(t, "a folder", nil, false)
}

// TestReloadOfAConfigMap: Kubernetes mounts a ConfigMap as links to a folder and swaps one link.
func TestReloadOfAConfigMap(t *testing.T) {
	dir := t.TempDir()
	mount := func(version, text string) {
		must(t, os.Mkdir(filepath.Join(dir, version), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, version, "policies.yaml"), []byte(text), 0o600))
		must(t, os.Symlink(version, filepath.Join(dir, "..data_tmp")))
		must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	mount("..1", named("a"))
	must(t, os.Symlink("..data/policies.yaml", filepath.Join(dir, "policies.yaml")))
	r := newReloads(t, filepath.Join(dir, "policies.yaml"))
	r.look()
	r.look()
	mount("..2", named("b"))
	must(t, os.RemoveAll(filepath.Join(dir, "..1")))
	r.look()
	r.look()
	r.want(t, "the link was swapped", []string{"b"}, true)
}

// TestReloadOfAFileThatGrows: a file that somebody is still writing does not count, though what is there so far would.
func TestReloadOfAFileThatGrows(t *testing.T) {
	r := newReloads(t, policyFile(t, named("a")))
	r.look()
	r.look()
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	defer f.Close()
	for i := range 5 {
		_, err := fmt.Fprintf(f, "%s", strings.Replace(named("b"), "policies:", map[bool]string{true: "policies:", false: "#"}[i == 0], 1))
		must(t, err)
		r.look()
	}
	r.want(t, "while it grows", nil, true)
	r.look()
	r.want(t, "once it is whole", []string{"b"}, true)
}
