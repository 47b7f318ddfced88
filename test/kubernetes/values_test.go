package kubernetes

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestMistypedValues: each key of values.yaml and of the values in testdata is refused when it is mistyped, and when its value is
// of another type.
func TestMistypedValues(t *testing.T) {
	t.Parallel()
	tried := map[string]bool{}
	for _, file := range append(valuesFiles(t), filepath.Join(chartFolder(), "values.yaml")) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range keyPaths(t, text) {
			if tried[path.String()] {
				continue
			}
			tried[path.String()] = true
			for what, values := range map[string]string{"mistyped": path.mistyped(t, text), "of another type": path.retyped(t, text)} {
				if _, _, err := release(t, "refrakt-gate", values); err == nil || !strings.Contains(err.Error(), "values don't meet the specifications of the schema") {
					t.Errorf("%s is taken when it is %s: %v", path, what, err)
				}
			}
		}
	}
	if len(tried) < 100 {
		t.Errorf("only %d keys were tried", len(tried))
	}
}

// keyPath leads to a key: names of keys and numbers of elements.
type keyPath []any

func (p keyPath) String() string { return strings.Trim(fmt.Sprint([]any(p)), "[]") }

// free says what the schema leaves to Kubernetes: names that are the user's, and what is nested deep in a pod.
var free = regexp.MustCompile(`^((podLabels|podAnnotations|nodeSelector|\w+ labels) .*|affinity \w+ .*|api container \w+ .*|(api )?volumes .*|networkPolicy .* (podSelector|namespaceSelector|ipBlock) .*)$`)

// keyPaths are the keys of values.
func keyPaths(t *testing.T, text []byte) (all []keyPath) {
	t.Helper()
	var walk func(at keyPath, v any)
	walk = func(at keyPath, v any) {
		if free.MatchString(at.String()) {
			return
		}
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				next := append(slices.Clone(at), key)
				if !free.MatchString(next.String()) {
					all = append(all, next)
				}
				walk(next, value)
			}
		case []any:
			for i, value := range v {
				walk(append(slices.Clone(at), i), value)
			}
		}
	}
	var values map[string]any
	if err := yaml.UnmarshalStrict(text, &values); err != nil {
		t.Fatal(err)
	}
	walk(nil, values)
	return all
}

// change is the values with another content in the map that has the key.
func (p keyPath) change(t *testing.T, text []byte, change func(in map[string]any, key string)) string {
	t.Helper()
	var values map[string]any
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	var at any = values
	for _, step := range p[:len(p)-1] {
		switch step := step.(type) {
		case string:
			at = at.(map[string]any)[step]
		case int:
			at = at.([]any)[step]
		}
	}
	change(at.(map[string]any), p[len(p)-1].(string))
	changed, err := yaml.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	return string(changed)
}

func (p keyPath) mistyped(t *testing.T, text []byte) string {
	return p.change(t, text, func(in map[string]any, key string) {
		in[key+"X"] = in[key]
		delete(in, key)
	})
}

func (p keyPath) retyped(t *testing.T, text []byte) string {
	return p.change(t, text, func(in map[string]any, key string) {
		switch in[key].(type) {
		case string:
			in[key] = map[string]any{}
		default:
			in[key] = "x!"
		}
	})
}

type jsonSchema struct {
	Properties           map[string]*jsonSchema
	AdditionalProperties json.RawMessage
}

func valuesSchema(t *testing.T) *jsonSchema {
	t.Helper()
	s := new(jsonSchema)
	if err := json.Unmarshal(theChart(t).Schema, s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestEnvNames: env takes the settings of the gate that are neither secrets nor the chart's own, and what else the gate and
// its libraries read.
func TestEnvNames(t *testing.T) {
	t.Parallel()
	_, settings := gate(t, install(t, "{}"))
	want := map[string]bool{}
	for name := range effective(t, settings) {
		want[name] = true
	}
	for _, name := range append(secretSettings, "POLICY_FILE", "GRPC_ADDR", "TELEMETRY_ADDR") {
		delete(want, name)
		delete(want, name+"_FILE")
	}
	for _, name := range []string{
		"GOGC", "GOMEMLIMIT", "SSL_CERT_FILE", "SSL_CERT_DIR",
		"OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
		"OTEL_EXPORTER_OTLP_CLIENT_KEY", "OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_COMPRESSION",
		"OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT", "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
	} {
		want[name] = true
	}
	env := valuesSchema(t).Properties["env"].Properties
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if env[name] == nil {
			t.Errorf("env does not take %s", name)
		}
		delete(env, name)
	}
	for name := range env {
		t.Errorf("env takes %s, which the gate does not read", name)
	}
	secrets := slices.Sorted(maps.Keys(valuesSchema(t).Properties["secrets"].Properties))
	if want := slices.Sorted(slices.Values(secretSettings)); !slices.Equal(secrets, want) {
		t.Errorf("secrets takes %v, want %v", secrets, want)
	}
}

// TestContainerFields: api.container has the fields of a container, but for its name and what makes it a native sidecar.
func TestContainerFields(t *testing.T) {
	t.Parallel()
	got := slices.Sorted(maps.Keys(valuesSchema(t).Properties["api"].Properties["container"].Properties))
	var want []string
	for field := range reflect.TypeFor[corev1.Container]().Fields() {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); !slices.Contains([]string{"name", "restartPolicy", "restartPolicyRules"}, name) {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the schema has %v, a container %v", got, want)
	}
}

// TestWrongValues: what the schema can't see fails too, with words that say what to do.
func TestWrongValues(t *testing.T) {
	t.Parallel()
	const peer = "[{podSelector: {}}]"
	for _, c := range []struct{ values, want string }{
		{"{mode: sidecar}", "mode: sidecar needs api.container"},
		{"{api: {container: {image: x}}}", "only for mode: sidecar"},
		{"{envoy: {config: x}}", "only for mode: sidecar"},
		{"{replicas: 11}", "replicas is more than autoscaling.maxReplicas"},
		{"{networkPolicy: {enabled: true}}", "nobody could ask the gate"},
		{"{networkPolicy: {enabled: true, requestsFrom: " + peer + "}, secrets: {QUEUE_URL: {name: a, key: b}}}", "could not reach its Redis"},
		{"{networkPolicy: {enabled: true, requestsFrom: " + peer + "}, podMonitor: {enabled: true}}", "nobody could scrape"},
		{"{networkPolicy: {requestsFrom: " + peer + "}}", "networkPolicy.enabled is false"},
		{"{podMonitor: {enabled: true}, env: {TELEMETRY_TLS_CERT_FILE: /x}}", "Prometheus could not verify"},
		{"{podMonitor: {tlsConfig: {serverName: x}}}", "env.TELEMETRY_TLS_CERT_FILE is not"},
		{"{policies: 'a: b: c'}", "policies is not the YAML of a policy file"},
		{"{policies: policies.yaml}", "policies is not the YAML of a policy file"},
		{"{policies: 'policy: {}'}", "has no key `policies`"},
		{"{policies: '{queues: {default: {}}, policies: {a: {queue: default}}}'}", "set secrets.QUEUE_URL"},
		{"{networkPolicy: {enabled: true, requestsFrom: " + peer + "}, env: {OTEL_EXPORTER_OTLP_ENDPOINT: http://collector}}", "could not reach its collector of traces"},
		{"{networkPolicy: {enabled: true, requestsFrom: " + peer + "}, env: {OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: http://collector}}", "could not reach its collector of traces"},
		{"{podMonitor: {enabled: true}, env: {PROMETHEUS_ENABLED: \"false\"}}", "env.PROMETHEUS_ENABLED switches the metrics off"},
		{"{podMonitor: {enabled: true}, env: {PROMETHEUS_ENABLED: \"Off\"}}", "env.PROMETHEUS_ENABLED switches the metrics off"},
		{"{podLabels: {app.kubernetes.io/name: x}}", "podLabels has app.kubernetes.io/name, which is the chart's own"},
		{"{podLabels: {app.kubernetes.io/part-of: x}}", "podLabels has app.kubernetes.io/part-of, which is the chart's own"},
		{"{podAnnotations: {checksum/settings: x}}", "podAnnotations has checksum/settings, which is the chart's own"},
		{"{podMonitor: {labels: {app.kubernetes.io/instance: x}}}", "podMonitor.labels has app.kubernetes.io/instance, which is the chart's own"},
		{"{prometheusRule: {labels: {helm.sh/chart: x}}}", "prometheusRule.labels has helm.sh/chart, which is the chart's own"},
		{"{dashboard: {labels: {app.kubernetes.io/managed-by: x}}}", "dashboard.labels has app.kubernetes.io/managed-by, which is the chart's own"},
		{"{volumes: [{name: policies, emptyDir: {}}]}", "two volumes have the name policies"},
		{"{volumes: [{name: a, emptyDir: {}}, {name: a, emptyDir: {}}]}", "two volumes have the name a;"},
		{"{mode: sidecar, api: {container: {image: x}, volumes: [{name: envoy, emptyDir: {}}]}}", "two volumes have the name envoy"},
		{"{env: {SHUTDOWN_DRAIN: 10 s}}", "at '/env/SHUTDOWN_DRAIN': '10 s' does not match"},
		{"{env: {SHUTDOWN_TIMEOUT: -1s}}", "at '/env/SHUTDOWN_TIMEOUT': '-1s' does not match"},
		{"{env: {STARTUP_TIMEOUT: soon}}", "at '/env/STARTUP_TIMEOUT': 'soon' does not match"},
		{"{env: {QUEUE_MAX_PENDING: \"7\"}}", "'QUEUE_MAX_PENDING' not allowed"},
		{"{env: {LOG_LEVELS: DEBUG}}", "'LOG_LEVELS' not allowed"},
		{"{env: {REDIS_TIMEOUT: 100}}", "got number, want string"},
		{"{env: {QUEUE_URL: redis://redis}}", "'QUEUE_URL' not allowed"},
		{"{secrets: {QUEUE_URL: redis://redis}}", "got string, want object"},
		{"{secrets: {QUEUE_URL: {name: refrakt-gate}}}", "missing property 'key'"},
	} {
		if _, _, err := release(t, "refrakt-gate", c.values); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.values, err, c.want)
		}
	}
}

// TestNullValues: null takes a default away. Where the chart needs the value, the schema says so.
func TestNullValues(t *testing.T) {
	t.Parallel()
	text := []byte(read(t, filepath.Join(chartFolder(), "values.yaml")))
	for _, path := range keyPaths(t, text) {
		values := path.change(t, text, func(in map[string]any, key string) { in[key] = nil })
		_, _, err := release(t, "refrakt-gate", values)
		if (strings.HasPrefix(path.String(), "env ") || strings.Contains(path.String(), "resources ")) && err == nil {
			continue // the gate's own default, and no resources
		}
		if want := fmt.Sprintf("missing property '%s'", path[len(path)-1]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is null: got %v, want %q", path, err, want)
		}
	}
}

// TestGracePeriod: the chart knows how long the gate takes to stop, and refuses a second less. checkGrace counts for itself.
func TestGracePeriod(t *testing.T) {
	t.Parallel()
	const sidecar = "{mode: sidecar, api: {container: {image: x, lifecycle: {preStop: {sleep: {seconds: 20}}}}}, terminationGracePeriodSeconds: %d}"
	for _, c := range []struct {
		values string
		need   int
	}{
		{"{terminationGracePeriodSeconds: %d}", 7 + 10 + 4},
		{"{env: {SHUTDOWN_DRAIN: \"\"}, terminationGracePeriodSeconds: %d}", 2 + 10 + 4},
		{"{env: {SHUTDOWN_DRAIN: null}, terminationGracePeriodSeconds: %d}", 2 + 10 + 4},
		{"{env: {SHUTDOWN_DRAIN: \"2.5\", SHUTDOWN_TIMEOUT: 500ms}, terminationGracePeriodSeconds: %d}", 7},
		{"{env: {SHUTDOWN_TIMEOUT: 1m0.5s}, terminationGracePeriodSeconds: %d}", 7 + 61 + 4},
		{sidecar, 20 + 7 + 10 + 4},
	} {
		checkGrace(t, install(t, fmt.Sprintf(c.values, c.need)))
		_, _, err := release(t, "refrakt-gate", fmt.Sprintf(c.values, c.need-1))
		if err == nil || !strings.Contains(err.Error(), "terminationGracePeriodSeconds is less than") {
			t.Errorf("%s: %d s are enough? %v", c.values, c.need-1, err)
		}
	}
}

// TestStartupProbe: it allows for longer than the gate waits, so that the gate ends with a reason in its log.
func TestStartupProbe(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]int32{"{}": 40, "{env: {STARTUP_TIMEOUT: \"\"}}": 40, "{env: {STARTUP_TIMEOUT: 2m}}": 130, "{env: {STARTUP_TIMEOUT: \"0.5\"}}": 11} {
		c, _ := gate(t, install(t, value))
		if p := c.StartupProbe; p.FailureThreshold != want || p.PeriodSeconds != 1 {
			t.Errorf("%s: %d probes, %d s apart, want %d, 1 s apart", value, p.FailureThreshold, p.PeriodSeconds, want)
		}
	}
}

// TestChartPolicies: the gate gets the user's policies byte by byte, for their order counts. They change no pod.
func TestChartPolicies(t *testing.T) {
	t.Parallel()
	pod := func(policies string) (manifests, any) {
		values, err := yaml.Marshal(map[string]any{
			"policies": policies,
			"env":      map[string]string{"USER_ID_SOURCES": "jwt"},
			"secrets":  map[string]any{"QUEUE_URL": map[string]string{"name": "a", "key": "b"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		m := install(t, string(values))
		return m, one[*appsv1.Deployment](t, m).Spec.Template
	}
	text := read(t, filepath.Join(e2e.Root(), "examples", "policies", "llm-gateway.yaml"))
	m, before := pod(text)
	c, settings := gate(t, m)
	if got := policies(t, m, c); got != text {
		t.Errorf("the gate has\n%s\nwant\n%s", got, text)
	}
	e2e.Config(t, settings)

	const indented = "  policies:\n    zz: {match: [/zz]}\n    aa: {match: [/]}"
	for _, end := range []string{"", "\n", "\n\n", "\n\n\n\n", "\n \n"} {
		m, after := pod(indented + end)
		if got := policies(t, m, c); got != indented+end {
			t.Errorf("the gate has\n%q\nwant\n%q", got, indented+end)
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("other policies roll the pods:\n%s", diff)
		}
	}
}

// TestOtherSettingsRollPods: a setting, and the configuration of a sidecar's Envoy.
func TestOtherSettingsRollPods(t *testing.T) {
	t.Parallel()
	pod := func(values string) any { return one[*appsv1.Deployment](t, install(t, values)).Spec.Template }
	if cmp.Equal(pod("{}"), pod("{env: {LOG_LEVEL: DEBUG}}")) {
		t.Error("another setting changes no pod")
	}
	const sidecar = "{mode: sidecar, api: {container: {image: x}}, envoy: {config: %q}}"
	if cmp.Equal(pod(fmt.Sprintf(sidecar, "a: 1")), pod(fmt.Sprintf(sidecar, "a: 2"))) {
		t.Error("another configuration of Envoy changes no pod")
	}
}
