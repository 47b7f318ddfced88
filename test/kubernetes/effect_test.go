package kubernetes

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/common/util"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// effect says in which objects another value is seen.
type effect struct {
	values  *regexp.Regexp
	objects []string
}

// effects has the effect of each value: the first one that matches. Without objects, any object may change.
var effects = []effect{
	{regexp.MustCompile(`^(mode|api name)$`), nil},
	{regexp.MustCompile(`^policies$`), []string{"ConfigMap refrakt-gate-policies"}},
	{regexp.MustCompile(`^env PROMETHEUS_METRICS_ROUTE$`), []string{"ConfigMap refrakt-gate", "Deployment", "PodMonitor"}},
	{regexp.MustCompile(`^env `), []string{"ConfigMap refrakt-gate", "Deployment"}},
	{regexp.MustCompile(`^secrets PROMETHEUS_BEARER_TOKEN `), []string{"Deployment", "PodMonitor"}},
	{regexp.MustCompile(`^autoscaling enabled$`), []string{"Deployment", "HorizontalPodAutoscaler"}},
	{regexp.MustCompile(`^(autoscaling .*|replicas)$`), []string{"HorizontalPodAutoscaler"}},
	{regexp.MustCompile(`^podDisruptionBudget `), []string{"PodDisruptionBudget"}},
	{regexp.MustCompile(`^service `), []string{"Service"}},
	{regexp.MustCompile(`^networkPolicy `), []string{"NetworkPolicy"}},
	{regexp.MustCompile(`^podMonitor `), []string{"PodMonitor"}},
	{regexp.MustCompile(`^prometheusRule `), []string{"PrometheusRule"}},
	{regexp.MustCompile(`^dashboard `), []string{"ConfigMap refrakt-gate-dashboard"}},
	{regexp.MustCompile(`^envoy config$`), []string{"ConfigMap refrakt-gate-envoy", "Deployment"}},
	{regexp.MustCompile(``), []string{"Deployment"}},
}

// others are valid values where one that is longer by a letter is none.
var others = map[string]any{
	"mode":                   "sidecar",
	"policies":               "policies: {a: {match: [/a]}}",
	"env SHUTDOWN_DRAIN":     "10s",
	"tolerations 0 operator": "Equal",
	"tolerations 0 effect":   "NoExecute",
}

// TestEveryValueIsUsed: each value is seen in the objects that it is for, and in no other.
func TestEveryValueIsUsed(t *testing.T) {
	t.Parallel()
	tried := map[string]bool{}
	ofSidecar := regexp.MustCompile(`^(envoy|api) `)
	changeEach(t, read(t, filepath.Join("testdata", "everything.yaml")), tried, func(at string) bool { return !ofSidecar.MatchString(at) })
	changeEach(t, read(t, valuesFile("sidecar"))+"envoy: {config: 'a: 1'}\n", tried, ofSidecar.MatchString)
	eachLeaf("", theChart(t).Values, nil, func(at string, _ any, _ func(any)) {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(tried)), func(path string) bool { return path == at || strings.HasPrefix(path, at+" ") }) {
			t.Errorf("no value of %s was tried", at)
		}
	})
}

// changeEach changes each value for itself.
func changeEach(t *testing.T, given string, tried map[string]bool, wanted func(at string) bool) {
	t.Helper()
	var set map[string]any
	if err := yaml.Unmarshal([]byte(given), &set); err != nil {
		t.Fatal(err)
	}
	values, err := util.CoalesceValues(theChart(t), set)
	if err != nil {
		t.Fatal(err)
	}
	before := texts(t, values)
	eachLeaf("", map[string]any(values), nil, func(at string, value any, set func(any)) {
		other := another(at, value)
		if !wanted(at) || other == nil {
			return
		}
		tried[at] = true
		set(other)
		defer set(value)
		switch at {
		case "mode":
			values["api"].(map[string]any)["container"] = map[string]any{"image": "x"}
			defer func() { values["api"].(map[string]any)["container"] = map[string]any{} }()
		case "networkPolicy enabled": // rules would be a mistake then
			rules := values["networkPolicy"]
			values["networkPolicy"] = map[string]any{"enabled": false}
			defer func() { values["networkPolicy"] = rules }()
		}
		after := texts(t, values)
		var changed []string
		for _, object := range slices.Sorted(maps.Keys(merged(before, after))) {
			if before[object] != after[object] {
				changed = append(changed, object)
			}
		}
		i := slices.IndexFunc(effects, func(e effect) bool { return e.values.MatchString(at) })
		if want := effects[i].objects; len(changed) == 0 || want != nil && !slices.Equal(changed, want) {
			t.Errorf("%s: %v instead of %v changes %v, want %v", at, other, value, changed, want)
		}
	})
}

// eachLeaf visits the values that are neither a map nor a list, or an empty one.
func eachLeaf(at string, value any, set func(any), visit func(at string, value any, set func(any))) {
	switch v := value.(type) {
	case map[string]any:
		for key, value := range v {
			eachLeaf(strings.TrimSpace(at+" "+key), value, func(other any) { v[key] = other }, visit)
		}
		if len(v) > 0 {
			return
		}
	case []any:
		for i, value := range v {
			eachLeaf(fmt.Sprint(at, " ", i), value, func(other any) { v[i] = other }, visit)
		}
		if len(v) > 0 {
			return
		}
	}
	visit(at, value, set)
}

// another is a valid value in place of this one; nil if it is empty.
func another(at string, value any) any {
	if other := others[at]; other != nil {
		return other
	}
	switch v := value.(type) {
	case bool:
		return !v
	case int64:
		return v + 1
	case float64:
		return v + 1
	case string:
		if v != "" {
			return v + "x"
		}
	}
	return nil
}

// texts are the objects of a release as JSON: ConfigMaps by their names, others by their kinds.
func texts(t *testing.T, values map[string]any) map[string]string {
	t.Helper()
	given, err := yaml.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	text, _, err := release(t, "refrakt-gate", string(given))
	if err != nil {
		t.Fatalf("%v\n%s", err, given)
	}
	found := map[string]string{}
	for _, document := range documents(t, text) {
		var object struct {
			Kind     string
			Metadata struct{ Name string }
		}
		if err := yaml.Unmarshal(document, &object); err != nil {
			t.Fatal(err)
		}
		name := object.Kind
		if name == "ConfigMap" {
			name += " " + object.Metadata.Name
		}
		if found[name] != "" {
			t.Fatalf("two objects are %s", name)
		}
		content, err := yaml.YAMLToJSON(document)
		if err != nil {
			t.Fatal(err)
		}
		found[name] = string(content)
	}
	return found
}

// TestChartFiles: what the chart takes from other folders is in its objects as it is there.
func TestChartFiles(t *testing.T) {
	t.Parallel()
	m := install(t, "{prometheusRule: {enabled: true}, dashboard: {enabled: true}}")
	rules, err := filepath.Glob(filepath.Join(e2e.Root(), "deploy", "prometheus", "rules", "*.yml"))
	if err != nil || len(rules) < 2 {
		t.Fatalf("rules: %v, %v", rules, err)
	}
	var want monitoringv1.PrometheusRuleSpec
	for _, file := range rules {
		var in monitoringv1.PrometheusRuleSpec
		if err := yaml.UnmarshalStrict([]byte(read(t, file)), &in); err != nil {
			t.Fatal(err)
		}
		want.Groups = append(want.Groups, in.Groups...)
	}
	if diff := cmp.Diff(want, one[*monitoringv1.PrometheusRule](t, m).Spec); diff != "" {
		t.Errorf("deploy/prometheus/rules (-), PrometheusRule (+):\n%s", diff)
	}
	for _, c := range all[*corev1.ConfigMap](m) {
		if c.Name == "refrakt-gate-dashboard" {
			got, want := c.Data["refrakt-gate.json"], read(t, filepath.Join(e2e.Root(), "deploy", "grafana", "refrakt-gate.json"))
			if got != want || !json.Valid([]byte(got)) {
				t.Errorf("the dashboard has %d bytes, want %d", len(got), len(want))
			}
			return
		}
	}
	t.Error("no ConfigMap has the dashboard")
}
