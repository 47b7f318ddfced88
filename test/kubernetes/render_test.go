// Package kubernetes checks deploy/kubernetes and deploy/chart without a cluster: every kustomization and the chart are
// rendered, decoded strictly by the types of the API they are for, validated by the schemas of several Kubernetes, and
// compared with what they go together with; their Envoys and gates are run.
//
// Run it with -count=1: go test does not see that a file outside of the module has changed, and would repeat an old result.
package kubernetes

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	egv1 "github.com/envoyproxy/gateway/api/v1alpha1"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"google.golang.org/protobuf/encoding/protojson"
	istiosecurity "istio.io/api/security/v1beta1"
	istiov1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

func TestMain(m *testing.M) { os.Exit(e2e.Main(m)) }

func folder() string { return filepath.Join(e2e.Root(), "deploy", "kubernetes") }

// kustomizations are the folders that can be rendered, relative to deploy/kubernetes. Components go into an overlay.
func kustomizations(t *testing.T) []string {
	t.Helper()
	var dirs []string
	err := filepath.WalkDir(folder(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "kustomization.yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		if !bytes.Contains(text, []byte("\nkind: Component\n")) {
			dir, _ := filepath.Rel(folder(), filepath.Dir(path))
			dirs = append(dirs, dir)
		}
		return err
	})
	if err != nil || len(dirs) == 0 {
		t.Fatalf("find kustomizations: %v, %d found", err, len(dirs))
	}
	return dirs
}

// manifests is what a kustomization or the chart renders to.
type manifests struct {
	dir     string
	text    []byte
	objects []runtime.Object
	// documents are the objects as they are written.
	documents [][]byte
}

// render renders a folder of deploy/kubernetes and decodes every object: a field its type does not know, or one that is
// there twice, fails.
func render(t *testing.T, dir string) manifests {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "tool", "-modfile="+filepath.Join(e2e.Root(), "tools", "go.mod"),
		"kustomize", "build", filepath.Join(folder(), dir))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("render %s with the kustomize of tools/go.mod (the first time, Go fetches and builds it): %v\n%s", dir, err, &stderr)
	}
	return decode(t, dir, text)
}

// decode decodes every object of what is called name.
func decode(t *testing.T, name string, text []byte) manifests {
	t.Helper()
	m := manifests{dir: name, text: text}
	decoder := decoder(t)
	for _, document := range documents(t, text) {
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Fatalf("decode an object of %s: %v\n%s", name, err, document)
		}
		if _, ok := object.(*istiov1.AuthorizationPolicy); ok {
			decodeIstio(t, document)
		}
		m.objects, m.documents = append(m.objects, object), append(m.documents, document)
	}
	return m
}

// documents are those of a YAML text.
func documents(t *testing.T, text []byte) (found [][]byte) {
	t.Helper()
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		var content any
		if err := yaml.Unmarshal(document, &content); err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		if content != nil {
			found = append(found, document)
		}
	}
}

// decodeIstio decodes the spec once more: Istio's own decoder takes fields it does not know.
func decodeIstio(t *testing.T, document []byte) {
	t.Helper()
	var object struct {
		Spec json.RawMessage `json:"spec"`
	}
	if err := yaml.Unmarshal(document, &object); err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(object.Spec, new(istiosecurity.AuthorizationPolicy)); err != nil {
		t.Fatalf("decode an AuthorizationPolicy: %v\n%s", err, document)
	}
}

func decoder(t *testing.T) runtime.Decoder {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, autoscalingv2.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme,
		monitoringv1.AddToScheme, gatewayv1.Install, egv1.AddToScheme, istiov1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
}

// all are the objects of one type.
func all[T runtime.Object](m manifests) []T {
	var found []T
	for _, o := range m.objects {
		if o, ok := o.(T); ok {
			found = append(found, o)
		}
	}
	return found
}

// one is the only object of its type.
func one[T runtime.Object](t *testing.T, m manifests) T {
	t.Helper()
	found := all[T](m)
	if len(found) != 1 {
		t.Fatalf("%s: %d objects of type %T, want 1", m.dir, len(found), *new(T))
	}
	return found[0]
}
