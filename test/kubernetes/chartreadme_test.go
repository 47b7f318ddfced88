package kubernetes

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/strvals"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

func chartReadme(t *testing.T) string {
	t.Helper()
	return read(t, filepath.Join(chartFolder(), "README.md"))
}

// TestValuesTable holds the table of the chart's README to values.yaml, both ways.
func TestValuesTable(t *testing.T) {
	t.Parallel()
	var values map[string]any
	if err := yaml.UnmarshalStrict([]byte(read(t, filepath.Join(chartFolder(), "values.yaml"))), &values); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{}
	whole := []string{"env", "secrets", "resources", "labels"} // are one value, though they are maps
	var walk func(name string, v any)
	walk = func(name string, v any) {
		in, isMap := v.(map[string]any)
		if !isMap || len(in) == 0 || slices.Contains(whole, name[strings.LastIndex(name, ".")+1:]) {
			want[name] = v
			return
		}
		for key, value := range in {
			walk(strings.TrimPrefix(name+"."+key, "."), value)
		}
	}
	walk("", values)
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-zA-Z.]+)` \\| `([^|]+)` \\| .+ \\|$").FindAllStringSubmatch(chartReadme(t), -1) {
		var said any
		if err := yaml.Unmarshal([]byte(row[2]), &said); err != nil {
			t.Errorf("%s: %v", row[0], err)
		}
		if value, ok := want[row[1]]; !ok || !reflect.DeepEqual(said, value) {
			t.Errorf("%s: the table says %v, values.yaml %v (there: %v)", row[1], said, value, ok)
		}
		delete(want, row[1])
	}
	for name := range want {
		t.Errorf("the table has no %s", name)
	}
}

// TestReadmeCommands runs each helm command of the README with each values.yaml that the README offers, and each command of the gate.
func TestReadmeCommands(t *testing.T) {
	t.Parallel()
	const ours = "oci://ghcr.io/refrakt-hub/charts/refrakt-gate"
	policies := read(t, filepath.Join(e2e.Root(), "deploy", "kubernetes", "base", "policies.yaml"))
	ran := 0
	for _, command := range regexp.MustCompile(`(?m)^helm .*$`).FindAllString(chartReadme(t), -1) {
		ran++
		args := strings.Fields(command)[1:]
		for _, example := range []string{"shared", "sidecar"} {
			values, name := map[string]any{}, ""
			for i := 0; i < len(args); i++ {
				switch arg := args[i]; arg {
				case "install", "upgrade", "--install", "--create-namespace", ours:
				case "refrakt-gate":
					name = arg
				case "--namespace":
					if i++; args[i] != "refrakt" {
						t.Errorf("%s: another namespace", command)
					}
				case "--values":
					i++
					if err := yaml.Unmarshal([]byte(read(t, valuesFile(example))), &values); err != nil {
						t.Fatal(err)
					}
				case "--set-file":
					i++
					if err := strvals.ParseIntoFile(args[i], values, func([]rune) (any, error) { return policies, nil }); err != nil {
						t.Fatal(err)
					}
				default:
					t.Errorf("%s: what is %s?", command, arg)
				}
			}
			text, err := yaml.Marshal(values)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := release(t, name, string(text)); err != nil {
				t.Errorf("%s, with %s.yaml: %v", command, example, err)
			}
		}
	}
	if ran != 3 {
		t.Errorf("%d helm commands, want 3", ran)
	}
	if !strings.Contains(chartReadme(t), "\nPOLICY_FILE=policies.yaml QUEUE_URL=redis://localhost refrakt-gate config\n") {
		t.Error("the README does not check the policies")
	}
	file := filepath.Join(t.TempDir(), "policies.yaml")
	if err := os.WriteFile(file, []byte(policies), 0o600); err != nil {
		t.Fatal(err)
	}
	e2e.Config(t, map[string]string{"POLICY_FILE": file, "QUEUE_URL": "redis://localhost"})
}

// TestReadmeValues: the values in the README are taken, and what it says of TLS is so.
func TestReadmeValues(t *testing.T) {
	t.Parallel()
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(chartReadme(t), -1)
	if len(blocks) != 2 {
		t.Fatalf("%d blocks of values, want 2", len(blocks))
	}
	for i, block := range blocks {
		m := install(t, block[1])
		c, settings := gate(t, m)
		if tls := i == 0; tls != (c.ReadinessProbe.HTTPGet != nil) || tls != (settings["GRPC_TLS_CERT_FILE"] != "") || tls == strings.Contains(string(m.text), "appProtocol") {
			t.Errorf("TLS: %v, readiness %v", tls, c.ReadinessProbe)
		}
		if traces := i == 1; traces != strings.Contains(e2e.Config(t, settings), "# traces go to ") {
			t.Errorf("traces:\n%s", e2e.Config(t, settings))
		}
	}
}

// TestReadmeUpgrade: what the README says of an upgrade is so, and its commands name objects that there are.
func TestReadmeUpgrade(t *testing.T) {
	t.Parallel()
	off, on := install(t, "{autoscaling: {enabled: false}}"), install(t, "{}")
	if was, is := one[*appsv1.Deployment](t, off).Spec.Replicas, one[*appsv1.Deployment](t, on).Spec.Replicas; was == nil || *was != 3 || is != nil {
		t.Errorf("replicas of the Deployment: %v without autoscaling, %v with it", was, is)
	}
	fixed := one[*autoscalingv2.HorizontalPodAutoscaler](t, install(t, "{replicas: 4, autoscaling: {maxReplicas: 4}}")).Spec
	if *fixed.MinReplicas != 4 || fixed.MaxReplicas != 4 {
		t.Errorf("%d to %d pods, want 4", *fixed.MinReplicas, fixed.MaxReplicas)
	}
	named := regexp.MustCompile("`kubectl -n refrakt [^`]*(service |deploy/)([a-z-]+)`").FindAllStringSubmatch(chartReadme(t), -1)
	if len(named) != 2 {
		t.Errorf("%d commands name an object, want 2", len(named))
	}
	names := map[string]string{"service ": one[*corev1.Service](t, on).Name, "deploy/": one[*appsv1.Deployment](t, on).Name}
	for _, command := range named {
		if names[command[1]] != command[2] {
			t.Errorf("%s: there is %s%s", command[0], command[1], names[command[1]])
		}
	}
}
