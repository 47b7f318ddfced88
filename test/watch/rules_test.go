package watch

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

const runbook = "https://github.com/refrakt-hub/refrakt-gate/blob/main/docs/runbook.md"

// rule is one rule of a rule file.
type rule struct {
	Record      string            `yaml:"record"`
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func rules(t *testing.T) []rule {
	t.Helper()
	var all []rule
	for _, file := range glob(t, e2e.Root(), "deploy/prometheus/rules/*.yml") {
		var text struct {
			Groups []struct {
				Rules []rule `yaml:"rules"`
			} `yaml:"groups"`
		}
		readYAML(t, file, &text)
		for _, g := range text.Groups {
			all = append(all, g.Rules...)
		}
	}
	return all
}

func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool := e2e.SystemTool(t, "promtool")
	dir := deployed(t)
	for name, args := range map[string][]string{
		"check config": append([]string{"check", "config"}, glob(t, dir, "*.yml")...),
		"check rules":  append([]string{"check", "rules"}, glob(t, dir, "rules/*.yml")...),
		"test rules":   append([]string{"test", "rules"}, glob(t, dir, "tests/*.yml")...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
				t.Errorf("promtool %s: %v\n%s", name, err, out)
			}
		})
	}
}

// TestAlertsAreTested wants cases of each alert where it fires and where it doesn't.
func TestAlertsAreTested(t *testing.T) {
	t.Parallel()
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, file := range glob(t, e2e.Root(), "deploy/prometheus/tests/*.yml") {
		var text struct {
			Tests []struct {
				Alerts []struct {
					Name string `yaml:"alertname"`
					Want []any  `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			} `yaml:"tests"`
		}
		readYAML(t, file, &text)
		for _, test := range text.Tests {
			for _, a := range test.Alerts {
				fires[a.Name] = fires[a.Name] || len(a.Want) > 0
				quiet[a.Name] = quiet[a.Name] || len(a.Want) == 0
			}
		}
	}
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		if !fires[r.Alert] || !quiet[r.Alert] {
			t.Errorf("%s: tested where it fires: %v, where it does not: %v; want both", r.Alert, fires[r.Alert], quiet[r.Alert])
		}
		delete(fires, r.Alert)
	}
	for name := range fires {
		t.Errorf("%s is tested, but no alert", name)
	}
}

// TestAutoscalersQuery: the query that the documents give autoscalers is the one that is tested.
func TestAutoscalersQuery(t *testing.T) {
	t.Parallel()
	var text struct {
		Tests []struct {
			Queries []struct {
				Expr string `yaml:"expr"`
			} `yaml:"promql_expr_test"`
		} `yaml:"tests"`
	}
	readYAML(t, filepath.Join(e2e.Root(), "deploy/prometheus/tests/autoscaler.yml"), &text)
	query := text.Tests[0].Queries[0].Expr
	for _, file := range []string{"docs/metrics.md", "deploy/kubernetes/README.md"} {
		if !strings.Contains(read(t, filepath.Join(e2e.Root(), file)), query) {
			t.Errorf("%s does not have the query %s", file, query)
		}
	}
}

// TestAlertsAreComplete wants a severity, texts with the value, and a link that leads somewhere.
func TestAlertsAreComplete(t *testing.T) {
	t.Parallel()
	sections := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(read(t, filepath.Join(e2e.Root(), "docs/runbook.md")), -1) {
		sections[m[1]] = true
	}
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		if s := r.Labels["severity"]; s != "warning" && s != "critical" {
			t.Errorf("%s: severity %q, want warning or critical", r.Alert, s)
		}
		if r.Annotations["summary"] == "" || !strings.Contains(r.Annotations["description"], "$value") {
			t.Errorf("%s: want a summary, and a description with the value", r.Alert)
		}
		if got, want := r.Annotations["runbook_url"], runbook+"#"+strings.ToLower(r.Alert); got != want {
			t.Errorf("%s: runbook_url %s, want %s", r.Alert, got, want)
		}
		if !sections[r.Alert] {
			t.Errorf("%s: docs/runbook.md has no section of that name", r.Alert)
		}
	}
}
