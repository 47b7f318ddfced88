package kubernetes

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"sigs.k8s.io/yaml"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestLint is `helm lint --strict`, with all values in testdata.
func TestLint(t *testing.T) {
	t.Parallel()
	theChart(t) // silences the log
	oldest, err := common.ParseKubeVersion("v" + oldestKubernetes(t) + ".0")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range valuesFiles(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var values map[string]any
		if err := yaml.Unmarshal(text, &values); err != nil {
			t.Fatal(err)
		}
		for _, message := range lint.RunAll(chartFolder(), values, "refrakt", lint.WithKubeVersion(oldest)).Messages {
			if message.Severity >= support.WarningSev {
				t.Errorf("%s: %v", file, message)
			}
		}
	}
}

// TestNotes: what helm prints at the end says what is missing, and only that.
func TestNotes(t *testing.T) {
	t.Parallel()
	const (
		address  = "refrakt-gate.refrakt.svc:9001 (gRPC)"
		eleventh = "The last request is denied with 429"
		noQueue  = "No queue is watched: secrets.QUEUE_URL is not set."
		memory   = "3 gates together admit 3 times what one does"
		noToken  = "secrets.PROMETHEUS_BEARER_TOKEN is not set"
		open     = "can spend the tokens of any client: networkPolicy is not enabled"
		scrapers = "Every pod can scrape the metrics: networkPolicy is not enabled"
		clients  = "http://refrakt-api.refrakt.svc:80"
	)
	all := []string{address, eleventh, noQueue, memory, noToken, open, scrapers, clients}
	for _, c := range []struct {
		values string
		want   []string
	}{
		{"{}", []string{address, eleventh, noQueue, memory, noToken, open}},
		{"{secrets: {QUEUE_URL: {name: a, key: b}}}", []string{address, eleventh, noToken, open}},
		{"{secrets: {RATE_LIMIT_REDIS_URL: {name: a, key: b}}}", []string{address, eleventh, noQueue, noToken, open}},
		{"{policies: 'policies: {a: {match: [/]}}'}", []string{address, noQueue, memory, noToken, open}},
		{read(t, valuesFile("shared")), []string{address, eleventh}},
		{read(t, valuesFile("sidecar")), []string{clients, eleventh}},
		{"{mode: sidecar, api: {container: {image: x}}, secrets: {QUEUE_URL: {name: a, key: b}}}", []string{clients, eleventh, noToken, scrapers}},
	} {
		_, notes, err := release(t, "refrakt-gate", c.values)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(strings.Fields(notes), " ")
		for _, words := range all {
			wanted := false
			for _, w := range c.want {
				wanted = wanted || w == words
			}
			if strings.Contains(got, words) != wanted {
				t.Errorf("%s: %q is in it: %v\n%s", c.values, words, !wanted, notes)
			}
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestWithoutValues: what helm installs without any value is a gate that works, and the command that it prints shows that.
func TestWithoutValues(t *testing.T) {
	t.Parallel()
	_, notes, err := release(t, "refrakt-gate", "{}")
	if err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile(`(?s)seq 12\); do\n +kubectl -n refrakt exec deploy/refrakt-gate -c gate -- refrakt-gate (check [^\n]+)\n +done`).FindStringSubmatch(notes)
	if said == nil {
		t.Fatalf("it prints no command to try:\n%s", notes)
	}
	_, settings := gate(t, install(t, "{}"))
	g := e2e.StartGate(t, with(settings, "GRPC_ADDR", "127.0.0.1:0", "TELEMETRY_ADDR", "127.0.0.1:0", "SHUTDOWN_DRAIN", "0s"))
	const burst, refill = 10, 10 * time.Second
	start := time.Now()
	for allowed := 0; ; allowed++ {
		code, out := e2e.RunGate(t, with(settings, "GRPC_ADDR", g.GRPC), strings.Fields(said[1])...)
		if code == 0 {
			if most := burst + int(time.Since(start)/refill); allowed >= most {
				t.Fatalf("request %d is allowed", allowed+1)
			}
			continue
		}
		if allowed < burst || !strings.Contains(out, "denied 429") {
			t.Errorf("after %d requests: exit code %d\n%s", allowed, code, out)
		}
		return
	}
}

// TestFirstStepsInReadme: the way to the first 429 in the project's README is the chart's: its first command, and the
// command that helm prints.
func TestFirstStepsInReadme(t *testing.T) {
	t.Parallel()
	steps := regexp.MustCompile("```sh\n(helm install [^\n]+)\n(for [^\n]+)\n```").FindStringSubmatch(read(t, filepath.Join(e2e.Root(), "README.md")))
	if steps == nil {
		t.Fatal("README.md installs no chart")
	}
	if first := regexp.MustCompile(`(?m)^helm .*$`).FindString(chartReadme(t)); steps[1] != first+" --wait" {
		t.Errorf("README.md has %q, the chart's %q", steps[1], first)
	}
	_, notes, err := release(t, "refrakt-gate", "{}")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join(strings.Fields(strings.ReplaceAll(steps[2], "deploy/refrakt-gate --", "deploy/refrakt-gate -c gate --")), " ")
	if got := strings.Join(strings.Fields(notes), " "); !strings.Contains(strings.ReplaceAll(got, "203.0.113.9 done", "203.0.113.9; done"), want) {
		t.Errorf("README.md has %q, helm prints\n%s", want, notes)
	}
}

// with are the settings and some more, as names and values.
func with(settings map[string]string, more ...string) map[string]string {
	all := merged(settings, nil)
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return all
}
