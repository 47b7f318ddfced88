package kubernetes

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	egv1 "github.com/envoyproxy/gateway/api/v1alpha1"
	"google.golang.org/protobuf/encoding/protojson"
	mesh "istio.io/api/mesh/v1alpha1"
	istiosecurity "istio.io/api/security/v1beta1"
	istiov1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// paths are normalised request paths, and the policy under which the API behind serves them.
var paths = map[string]string{
	"/run": "run", "/run/": "run", "/run/x": "run", "/run%0a": "run", "/run%0A": "run", "/run;a=1": "run",
	"/assistant": "assistant", "/assistant/x": "assistant", "/assistant%0a": "assistant", "/assistant;a=1": "assistant",
	"/": "", "/ping": "", "/running": "", "/x/run": "",
}

// policyTimeout is what the gate has to answer in; see envoy.yaml.
const policyTimeout = 250 * time.Millisecond

func TestEnvoyGateway(t *testing.T) {
	t.Parallel()
	m := render(t, "overlays/envoy-gateway")
	routes := map[string]*gatewayv1.HTTPRoute{}
	for _, r := range all[*gatewayv1.HTTPRoute](m) {
		routes[r.Name] = r
	}
	policies := map[string]string{} // of the gate, by route
	for _, p := range all[*egv1.SecurityPolicy](m) {
		auth := p.Spec.ExtAuth
		if len(p.Spec.TargetRefs) != 1 || routes[string(p.Spec.TargetRefs[0].Name)] == nil {
			t.Fatalf("%s: it does not target one of the routes: %v", p.Name, p.Spec.TargetRefs)
		}
		if m := p.Spec.MergeType; m == nil || *m != egv1.StrategicMerge {
			t.Errorf("%s takes the place of the Gateway's policy: mergeType %v", p.Name, m)
		}
		if len(auth.ContextExtensions) != 1 || auth.ContextExtensions[0].Name != "policy" {
			t.Fatalf("%s: it does not name the policy: %v", p.Name, auth.ContextExtensions)
		}
		policies[string(p.Spec.TargetRefs[0].Name)] = *auth.ContextExtensions[0].Value

		if d, err := time.ParseDuration(string(*auth.Timeout)); err != nil || d != policyTimeout {
			t.Errorf("%s: timeout %v", p.Name, *auth.Timeout)
		}
		if auth.FailOpen == nil || *auth.FailOpen || *auth.StatusOnError != 503 {
			t.Errorf("%s: it does not answer 503 when the gate is gone", p.Name)
		}
		if got, want := auth.HeadersToExtAuth, allowedHeaders(t); !slices.Equal(got, want) {
			t.Errorf("%s: headers %v, envoy.yaml has %v", p.Name, got, want)
		}
		back := auth.GRPC.BackendRefs[0]
		wantBalanced(t, m, string(back.Name), *back.Port)
		if health := auth.GRPC.BackendSettings.HealthCheck.Active; health.Type != egv1.ActiveHealthCheckerTypeGRPC || health.GRPC == nil {
			t.Errorf("%s: health check %v", p.Name, health)
		}
		for _, trigger := range auth.GRPC.BackendSettings.Retry.RetryOn.Triggers {
			if trigger != egv1.ConnectFailure && trigger != egv1.RefusedStream {
				t.Errorf("%s: a retry on %s may spend a second token", p.Name, trigger)
			}
		}
	}
	for path, want := range paths {
		if route := matched(t, routes, path); policies[route] != want {
			t.Errorf("%s goes to the route %q with the policy %q, want %q", path, route, policies[route], want)
		}
	}

	client := one[*egv1.ClientTrafficPolicy](t, m).Spec
	if *client.Path.EscapedSlashesAction != egv1.RejectRequestAction || *client.Path.DisableMergeSlashes {
		t.Errorf("paths: %v", client.Path)
	}
	if *client.Headers.WithUnderscoresAction != egv1.WithUnderscoresActionRejectRequest {
		t.Errorf("headers: %v", client.Headers)
	}
}

// matched is the name of the route that Envoy Gateway takes: expressions go before prefixes, the longer prefix first.
func matched(t *testing.T, routes map[string]*gatewayv1.HTTPRoute, path string) string {
	t.Helper()
	best, found := -1, ""
	for name, route := range routes {
		for _, match := range route.Spec.Rules[0].Matches {
			value, weight := *match.Path.Value, 0
			switch *match.Path.Type {
			case gatewayv1.PathMatchRegularExpression:
				if regexp.MustCompile("^(?:" + value + ")$").MatchString(path) {
					weight = 1000 + len(value)
				}
			case gatewayv1.PathMatchPathPrefix:
				if prefix := strings.TrimSuffix(value, "/"); path == prefix || strings.HasPrefix(path, prefix+"/") {
					weight = 1 + len(prefix)
				}
			default:
				t.Fatalf("%s: a match of type %s", name, *match.Path.Type)
			}
			if weight > 0 && weight > best {
				best, found = weight, name
			}
		}
	}
	return found
}

// allowedHeaders are the headers that the shipped Envoy sends the gate. Method and path are told apart from them.
func allowedHeaders(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, found := range regexp.MustCompile(`(?m)^ +- exact: ([a-z][a-z-]+)`).FindAllStringSubmatch(shipped(t), -1) {
		names = append(names, found[1])
	}
	if len(names) == 0 {
		t.Fatalf("no allowed_headers in %s", e2e.ShippedConfig)
	}
	return names
}

// wantBalanced checks that the Service is that of the gate and has a cluster address: Envoy Gateway and Istio balance
// among its endpoints themselves, and a headless one is something else to them.
func wantBalanced(t *testing.T, m manifests, name string, port gatewayv1.PortNumber) {
	t.Helper()
	service := one[*corev1.Service](t, m)
	if service.Name != name || service.Spec.Ports[0].Port != port || service.Spec.ClusterIP != "" {
		t.Errorf("asked at %s:%d, the Service is %s:%d, cluster IP %q", name, port, service.Name, service.Spec.Ports[0].Port, service.Spec.ClusterIP)
	}
}

func TestIstio(t *testing.T) {
	t.Parallel()
	m := render(t, "overlays/istio")
	policy := &one[*istiov1.AuthorizationPolicy](t, m).Spec
	config := meshConfig(t)
	if got, want := config.GetPathNormalization().GetNormalization(), mesh.MeshConfig_ProxyPathNormalization_DECODE_AND_MERGE_SLASHES; got != want {
		t.Errorf("path normalisation: got %v, want %v", got, want)
	}
	if len(config.GetExtensionProviders()) != 1 {
		t.Fatalf("providers: %v", config.GetExtensionProviders())
	}
	provider := config.GetExtensionProviders()[0]
	if policy.GetAction() != istiosecurity.AuthorizationPolicy_CUSTOM || policy.GetProvider().GetName() != provider.GetName() {
		t.Errorf("the policy asks %v, the provider is %s", policy.GetProvider(), provider.GetName())
	}
	grpc := provider.GetEnvoyExtAuthzGrpc()
	if grpc.GetTimeout().AsDuration() != policyTimeout || grpc.GetFailOpen() || grpc.GetStatusOnError() != "503" {
		t.Errorf("the provider: %v", grpc)
	}
	service := one[*corev1.Service](t, m)
	wantBalanced(t, m, strings.TrimSuffix(grpc.GetService(), fmt.Sprintf(".%s.svc.cluster.local", service.Namespace)), gatewayv1.PortNumber(grpc.GetPort()))

	for path, guarded := range paths {
		asked := slices.ContainsFunc(policy.GetRules()[0].GetTo()[0].GetOperation().GetPaths(), func(pattern string) bool {
			prefix, ok := strings.CutSuffix(pattern, "*")
			return path == pattern || ok && strings.HasPrefix(path, prefix)
		})
		if guarded != "" && !asked {
			t.Errorf("%s: the gate is not asked", path)
		}
	}
}

// meshConfig is what istio/mesh.yaml says to istiod, decoded strictly.
func meshConfig(t *testing.T) *mesh.MeshConfig {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder(), "overlays", "istio", "mesh.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]json.RawMessage
	if err := yaml.UnmarshalStrict(text, &values); err != nil {
		t.Fatal(err)
	}
	config := new(mesh.MeshConfig)
	if err := protojson.Unmarshal(values["meshConfig"], config); err != nil || len(values) != 1 {
		t.Fatalf("decode mesh.yaml: %v, with %d values", err, len(values))
	}
	return config
}
