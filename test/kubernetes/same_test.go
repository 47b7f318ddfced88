package kubernetes

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// TestChartIsTheOverlays: for the same settings, the chart and kustomize make the same objects.
func TestChartIsTheOverlays(t *testing.T) {
	t.Parallel()
	for _, overlay := range []string{"shared", "sidecar"} {
		t.Run(overlay, func(t *testing.T) {
			t.Parallel()
			values, err := os.ReadFile(valuesFile(overlay))
			if err != nil {
				t.Fatal(err)
			}
			kustomize := objectsOf(t, render(t, withComponents(t, "overlays/"+overlay)))
			chart := objectsOf(t, install(t, string(values)))
			for _, name := range slices.Sorted(maps.Keys(merged(kustomize, chart))) {
				if diff := cmp.Diff(kustomize[name], chart[name]); diff != "" {
					t.Errorf("%s: kustomize (-), chart (+):\n%s", name, diff)
				}
			}
		})
	}
}

func merged[V any](a, b map[string]V) map[string]V {
	all := map[string]V{}
	maps.Copy(all, a)
	maps.Copy(all, b)
	return all
}

var hashed = regexp.MustCompile(`^(refrakt-gate|refrakt-gate-envoy)-[a-z0-9]{10}$`)

// objectsOf are the objects by kind and name, without what differs by nature.
func objectsOf(t *testing.T, m manifests) map[string]any {
	t.Helper()
	objects := map[string]any{}
	for _, o := range m.objects {
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			t.Fatal(err)
		}
		object = neutral(object).(map[string]any)
		delete(object, "status")
		kind, meta := object["kind"].(string), object["metadata"].(map[string]any)
		switch kind {
		case "ConfigMap":
			// Layout and comments are no difference in a file that is YAML.
			for name, text := range object["data"].(map[string]any) {
				var content any
				if err := yaml.Unmarshal([]byte(text.(string)), &content); err == nil && filepath.Ext(name) == ".yaml" {
					object["data"].(map[string]any)[name] = content
				}
			}
		case "PodMonitor":
			// The component's selects the gates of the namespace, a chart's those of its release: there may be two.
			delete(object["spec"].(map[string]any), "selector")
		}
		objects[fmt.Sprintf("%s %s", kind, meta["name"])] = object
	}
	return objects
}

// notKustomized is what a chart adds: what its annotations and labels say of the release, and the label by which everything in
// it selects the pods of this release alone. A kustomization is there once in a namespace.
var notKustomized = regexp.MustCompile(`^(checksum/.*|helm\.sh/chart|app\.kubernetes\.io/(managed-by|instance))$`)

// neutral takes away that, and the hash of the settings that kustomize puts into names.
func neutral(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if notKustomized.MatchString(key) || key == "creationTimestamp" {
				delete(v, key)
				continue
			}
			if v[key] = neutral(value); key == "annotations" && len(value.(map[string]any)) == 0 {
				delete(v, key)
			}
		}
	case []any:
		for i := range v {
			v[i] = neutral(v[i])
		}
	case string:
		if found := hashed.FindStringSubmatch(v); found != nil {
			return found[1]
		}
	}
	return v
}

// withComponents is an overlay of one's own on top of another one, with the line of the README that takes all components.
func withComponents(t *testing.T, overlay string) string {
	t.Helper()
	return ownOverlay(t, overlay, readmeYAML(t, "components:"), nil)
}
