package kubernetes

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestSchemas validates all that can be rendered by the schemas of each Kubernetes from the oldest one that the README names
// to the newest one that has schemas here, and what is not of Kubernetes itself by the CRDs. Unknown fields are refused.
func TestSchemas(t *testing.T) {
	t.Parallel()
	everything := renderings(t)
	for _, k := range kubernetesReleases(t) {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			for _, m := range everything {
				for _, document := range m.documents {
					if err := k.validate(object(t, document)); err != nil {
						t.Errorf("%s: %v\n%s", m.dir, err, document)
					}
				}
			}
			wantRefused(t, k, everything)
		})
	}
}

// wantRefused mistypes a field in one object of each kind.
func wantRefused(t *testing.T, k *kubernetesRelease, everything []manifests) {
	t.Helper()
	kinds := map[string][]byte{}
	for _, m := range everything {
		for _, document := range m.documents {
			kinds[object(t, document)["kind"].(string)] = document
		}
	}
	if want := []string{
		"AuthorizationPolicy", "ClientTrafficPolicy", "ConfigMap", "Deployment", "HTTPRoute", "HorizontalPodAutoscaler", "NetworkPolicy",
		"PodDisruptionBudget", "PodMonitor", "PrometheusRule", "SecurityPolicy", "Service",
	}; !slices.Equal(slices.Sorted(maps.Keys(kinds)), want) {
		t.Errorf("kinds: %v, want %v", slices.Sorted(maps.Keys(kinds)), want)
	}
	for kind, document := range kinds {
		mistyped := object(t, document)
		in, ok := mistyped["spec"].(map[string]any)
		if !ok {
			in = mistyped
		}
		in["mistyped"] = map[string]any{}
		if err := k.validate(mistyped); err == nil || !strings.Contains(err.Error(), "'mistyped' not allowed") {
			t.Errorf("a %s with a field that does not exist: %v", kind, err)
		}
	}
}

func object(t *testing.T, document []byte) map[string]any {
	t.Helper()
	text, err := yaml.YAMLToJSON(document)
	if err != nil {
		t.Fatal(err)
	}
	o, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return o.(map[string]any)
}

// kubernetesRelease has the schemas of a minor release.
type kubernetesRelease struct {
	name     string
	crds     map[schema.GroupVersionKind]any
	compiler *jsonschema.Compiler
}

// schemaFiles are the files of a folder. Their ids say that they are at kubernetes.io.
type schemaFiles string

const schemaURL = "https://kubernetes.io/api/"

// Load implements [jsonschema.URLLoader].
func (f schemaFiles) Load(url string) (any, error) {
	return jsonschema.FileLoader{}.Load("file://" + filepath.Join(string(f), strings.TrimPrefix(url, schemaURL)))
}

func kubernetesReleases(t *testing.T) []*kubernetesRelease {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(e2e.Root(), ".venv", "lib", "python3*", "site-packages", "kubernetes_validate", "kubernetes-json-schema", "v1.*.0-local-strict"))
	if err != nil {
		t.Fatal(err)
	}
	crds := crds(t)
	var found []*kubernetesRelease
	for _, dir := range dirs {
		name, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), "v"), ".0-")
		if minor(t, name) < minor(t, oldestKubernetes(t)) {
			continue
		}
		k := &kubernetesRelease{name: name, crds: crds, compiler: jsonschema.NewCompiler()}
		k.compiler.UseLoader(schemaFiles(dir))
		found = append(found, k)
	}
	if len(found) < 3 || found[0].name != oldestKubernetes(t) {
		t.Fatalf("schemas of %d releases of Kubernetes from %s on, want 3 or more: run `make setup`", len(found), oldestKubernetes(t))
	}
	readme := read(t, filepath.Join(folder(), "README.md"))
	if words := fmt.Sprintf("Kubernetes %s to %s", found[0].name, found[len(found)-1].name); !strings.Contains(readme, words) {
		t.Errorf("the README does not say that the manifests are validated by the schemas of %s", words)
	}
	return found
}

// oldestKubernetes is the release from which on README and chart say that it works.
func oldestKubernetes(t *testing.T) string {
	t.Helper()
	var oldest []string
	for _, readme := range []string{read(t, filepath.Join(folder(), "README.md")), chartReadme(t)} {
		said := regexp.MustCompile(`You need Kubernetes (1\.\d+) or newer`).FindStringSubmatch(readme)
		if said == nil {
			t.Fatal("a README names no oldest Kubernetes")
		}
		oldest = append(oldest, said[1])
	}
	if want := fmt.Sprintf(">=%s.0-0", oldest[0]); theChart(t).Metadata.KubeVersion != want || oldest[1] != oldest[0] {
		t.Errorf("the READMEs say that Kubernetes %v is the oldest, kubeVersion of the chart is %s", oldest, theChart(t).Metadata.KubeVersion)
	}
	return oldest[0]
}

func minor(t *testing.T, release string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimPrefix(release, "1."))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (k *kubernetesRelease) validate(o map[string]any) error {
	kind := schema.FromAPIVersionAndKind(o["apiVersion"].(string), o["kind"].(string))
	s, err := k.schema(kind)
	if err != nil {
		return fmt.Errorf("the schema of %s: %w", kind, err)
	}
	return s.Validate(o)
}

func (k *kubernetesRelease) schema(kind schema.GroupVersionKind) (*jsonschema.Schema, error) {
	if crd, ok := k.crds[kind]; ok {
		url := "crd:///" + strings.ToLower(kind.String())
		if err := k.compiler.AddResource(url, crd); err != nil && !errors.As(err, new(*jsonschema.ResourceExistsError)) {
			return nil, err
		}
		return k.compiler.Compile(url)
	}
	group, _, _ := strings.Cut(kind.Group, ".")
	file := strings.ToLower(kind.Kind) + "-" + strings.TrimPrefix(group+"-", "-") + kind.Version + ".json"
	return k.compiler.Compile(schemaURL + file)
}

// crds are the schemas of the CRDs, made strict, from the modules whose types the manifests are decoded by. The module of the
// Prometheus Operator's types has no CRDs, so these are of the newest release that the Go proxy has whole: what an operator
// that is older than the types knows is what the manifests may use.
var crdModules = map[string]string{
	"github.com/envoyproxy/gateway": "charts/gateway-helm/charts/crds/crds/generated/*.yaml",
	"sigs.k8s.io/gateway-api":       "config/crd/standard/*.yaml",
	"istio.io/api":                  "kubernetes/customresourcedefinitions.gen.yaml",
	"github.com/prometheus-operator/prometheus-operator@v0.85.0": "example/prometheus-operator-crd/*.yaml",
}

func crds(t *testing.T) map[schema.GroupVersionKind]any {
	t.Helper()
	found := map[schema.GroupVersionKind]any{}
	for module, files := range crdModules {
		paths, err := filepath.Glob(filepath.Join(moduleFolder(t, module), files))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s has no %s: %v", module, files, err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, document := range documents(t, text) {
				var crd struct {
					Kind string
					Spec struct {
						Group    string
						Names    struct{ Kind string }
						Versions []struct {
							Name   string
							Schema struct{ OpenAPIV3Schema map[string]any }
						}
					}
				}
				if err := yaml.Unmarshal(document, &crd); err != nil {
					t.Fatalf("%s: %v", path, err)
				}
				for _, v := range crd.Spec.Versions {
					kind := schema.GroupVersionKind{Group: crd.Spec.Group, Version: v.Name, Kind: crd.Spec.Names.Kind}
					found[kind] = strict(v.Schema.OpenAPIV3Schema)
					for _, implied := range []string{"apiVersion", "kind", "metadata"} {
						properties := v.Schema.OpenAPIV3Schema["properties"].(map[string]any)
						if properties[implied] == nil {
							properties[implied] = true
						}
					}
				}
			}
		}
	}
	return found
}

// strict refuses what a CRD's schema does not name, as an API server does with fieldValidation=Strict.
func strict(s map[string]any) map[string]any {
	properties, named := s["properties"].(map[string]any)
	for _, p := range properties {
		strict(p.(map[string]any))
	}
	for _, below := range []string{"items", "additionalProperties"} {
		if inner, ok := s[below].(map[string]any); ok {
			strict(inner)
		}
	}
	if open, _ := s["x-kubernetes-preserve-unknown-fields"].(bool); named && !open && s["additionalProperties"] == nil {
		s["additionalProperties"] = false
	}
	return s
}

// moduleFolder is where the files of a Go module are. Go fetches it the first time.
func moduleFolder(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module).Output()
	var said struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &said); err != nil || jsonErr != nil || said.Dir == "" {
		t.Fatalf("go mod download %s: %v %v %s", module, err, jsonErr, said.Error)
	}
	return said.Dir
}
