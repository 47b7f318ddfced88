package kubernetes

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/common"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// selectors are all that select pods.
func selectors(m manifests) map[string]map[string]string {
	found := map[string]map[string]string{}
	add := func(what string, s *metav1.LabelSelector) { found[what] = s.MatchLabels }
	for _, d := range all[*appsv1.Deployment](m) {
		add("Deployment "+d.Name, d.Spec.Selector)
		for i, c := range d.Spec.Template.Spec.TopologySpreadConstraints {
			add(fmt.Sprint("spread ", i, d.Name), c.LabelSelector)
		}
	}
	for _, s := range all[*corev1.Service](m) {
		found["Service "+s.Name] = s.Spec.Selector
	}
	for _, b := range all[*policyv1.PodDisruptionBudget](m) {
		add("PodDisruptionBudget "+b.Name, b.Spec.Selector)
	}
	for _, n := range all[*networkingv1.NetworkPolicy](m) {
		add("NetworkPolicy "+n.Name, &n.Spec.PodSelector)
	}
	for _, p := range all[*monitoringv1.PodMonitor](m) {
		add("PodMonitor "+p.Name, &p.Spec.Selector)
	}
	return found
}

// TestSelectsItsRelease: everything in a release selects the pods of this release, not those of another one nor those of
// another chart whose release has the same name. TestManifests says that it selects its own.
func TestSelectsItsRelease(t *testing.T) {
	t.Parallel()
	for example, name := range map[string]string{"shared": "refrakt-gate", "sidecar": "refrakt-api"} {
		text, _, err := release(t, "payments", read(t, valuesFile(example)))
		if err != nil {
			t.Fatal(err)
		}
		m := decode(t, example, text)
		found := selectors(m)
		if len(found) != 7 {
			t.Errorf("%s: %d selectors, want 7: %v", example, len(found), found)
		}
		for what, labels := range found {
			if len(labels) != 2 || labels["app.kubernetes.io/name"] != name || labels["app.kubernetes.io/instance"] != "payments" {
				t.Errorf("%s: %s selects %v", example, what, labels)
			}
		}
		for _, o := range m.objects {
			object, err := meta.Accessor(o)
			if err != nil {
				t.Fatal(err)
			}
			if labels := object.GetLabels(); labels["app.kubernetes.io/instance"] != "payments" {
				t.Errorf("%s: %T %s has the labels %v", example, o, object.GetName(), labels)
			}
		}
	}
}

// TestNames: names that YAML would read as something else are names, and what can't be a Service fails.
func TestNames(t *testing.T) {
	t.Parallel()
	everything := read(t, "testdata/everything.yaml")
	sidecar := read(t, valuesFile("sidecar"))
	for _, c := range []struct{ release, namespace, values, want string }{
		{"true", "123", everything, ""},
		{"null", "1e3", everything, ""},
		{"123", "0x1", sidecar, ""},
		{"a.b", "123", sidecar, ""},
		{"true", "true", strings.Replace(sidecar, "api: #", "api:\n  name: \"null\" #", 1), ""},
		{strings.Repeat("a", 53), "refrakt", everything, ""},
		{"123", "refrakt", everything, "a Service can't be called 123: take a name of the release that begins with a letter"},
		{"a.b", "refrakt", everything, "a Service can't be called a.b: "},
	} {
		text, _, err := releaseOf(t, theChart(t), c.release, c.namespace, c.values)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %q", c.release, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.release, err)
			continue
		}
		for _, o := range decode(t, c.release, text).objects { // fails where a number or a bool is no string
			if object, err := meta.Accessor(o); err != nil || object.GetNamespace() != c.namespace {
				t.Errorf("%s: %T %s is in the namespace %q, want %q (%v)", c.release, o, object.GetName(), object.GetNamespace(), c.namespace, err)
			}
		}
	}
}

// dependent is a chart that has this one as dependencies, each with an alias; an empty one is none.
func dependent(t *testing.T, aliases ...string) *chartv2.Chart {
	t.Helper()
	own := *theChart(t)
	metadata := *own.Metadata
	own.Metadata = &metadata
	parent := &chartv2.Chart{Metadata: &chartv2.Metadata{APIVersion: "v2", Name: "shop", Version: "1.0.0"}, Values: map[string]any{}}
	for _, alias := range aliases {
		condition := "refrakt-gate.enabled"
		if alias != "" {
			condition = alias + ".enabled"
		}
		parent.Metadata.Dependencies = append(parent.Metadata.Dependencies,
			&chartv2.Dependency{Name: "refrakt-gate", Version: metadata.Version, Alias: alias, Condition: condition})
	}
	parent.SetDependencies(&own)
	return parent
}

// TestDependency: the chart as a dependency of another one, with a condition, a global value and aliases.
func TestDependency(t *testing.T) {
	t.Parallel()
	const global = "global: {imageRegistry: registry.example}\n"
	text, _, err := releaseOf(t, dependent(t, ""), "shop", "refrakt", global+"refrakt-gate: {enabled: true}")
	if err != nil {
		t.Fatal(err)
	}
	if name := one[*corev1.Service](t, decode(t, "dependency", text)).Name; name != "shop" {
		t.Errorf("the Service has the name %s, want shop", name)
	}
	if text, _, err := releaseOf(t, dependent(t, ""), "shop", "refrakt", "refrakt-gate: {enabled: false}"); err != nil || len(text) > 0 {
		t.Errorf("switched off, it makes %s (%v)", text, err)
	}
	if _, _, err := release(t, "refrakt-gate", "{enabled: false}"); err == nil || !strings.Contains(err.Error(), "enabled is only for the condition") {
		t.Errorf("enabled: false without a condition: %v", err)
	}

	text, _, err = releaseOf(t, dependent(t, "limits", "reserve"), "shop", "refrakt", global+"limits: {enabled: true, podMonitor: {enabled: true}}")
	if err != nil {
		t.Fatal(err)
	}
	m := decode(t, "aliases", text)
	var names []string
	for _, o := range m.objects {
		object, err := meta.Accessor(o)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%T %s", o, object.GetName())
		if slices.Contains(names, name) {
			t.Errorf("two objects are %s", name)
		}
		names = append(names, name)
	}
	if len(names) != 13 {
		t.Errorf("two aliases make %d objects, want 13: %v", len(names), names)
	}
	for what, labels := range selectors(m) {
		if alias := labels["app.kubernetes.io/instance"]; !strings.HasSuffix(what, alias) {
			t.Errorf("%s selects %v", what, labels)
		}
	}
	if _, _, err := releaseOf(t, dependent(t, strings.Repeat("a", 60)), "shop", "refrakt", "{}"); err == nil || !strings.Contains(err.Error(), "at most 63") {
		t.Errorf("an alias that is too long: %v", err)
	}
}

// TestWithoutFiles: a copy of the chart without what the links in it lead to fails, where it would have made empty objects.
func TestWithoutFiles(t *testing.T) {
	t.Parallel()
	gone, line := *theChart(t), *theChart(t)
	gone.Files, line.Files = nil, nil
	for _, f := range theChart(t).Files {
		if !strings.HasPrefix(f.Name, "files/") {
			gone.Files = append(gone.Files, f)
		}
		line.Files = append(line.Files, &common.File{Name: f.Name, Data: []byte("../../../" + f.Name)})
	}
	for what, c := range map[string]*chartv2.Chart{"no files": &gone, "paths in their place": &line} {
		for values, file := range map[string]string{
			"{prometheusRule: {enabled: true}}":               "files/rules/alerts.yml",
			"{dashboard: {enabled: true}}":                    "files/refrakt-gate.json",
			"{mode: sidecar, api: {container: {image: a:b}}}": "files/envoy.yaml",
		} {
			want := "this copy of the chart has no " + file
			if _, _, err := releaseOf(t, c, "refrakt-gate", "refrakt", values); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %s: got %v, want %q", what, values, err, want)
			}
		}
	}
}
