package kubernetes

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

const sidecar = "overlays/sidecar"

// sidecarEnvoy is the sidecar's Envoy container and the configuration it mounts.
func sidecarEnvoy(t *testing.T, m manifests) (container, string) {
	t.Helper()
	list := containers(m)
	i := slices.IndexFunc(list, func(c container) bool { return c.Name == "envoy" })
	if i < 0 {
		t.Fatal("no container named envoy")
	}
	for _, c := range all[*corev1.ConfigMap](m) {
		if config, ok := c.Data["envoy.yaml"]; ok {
			return list[i], config
		}
	}
	t.Fatal("no ConfigMap with an envoy.yaml")
	return container{}, ""
}

// envoyArgs are the container's own, with the configuration in another file.
func envoyArgs(t *testing.T, c container, file string) []string {
	t.Helper()
	args := slices.Clone(c.Args)
	i := slices.Index(args, "/etc/envoy/envoy.yaml")
	if i < 1 || args[i-1] != "--config-path" {
		t.Fatalf("no --config-path in %q", args)
	}
	args[i] = file
	return args
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func validate(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), e2e.Tool(t, "envoy"), append(args, "--mode", "validate")...).CombinedOutput()
	if err != nil {
		t.Errorf("Envoy does not take it: %v\n%s", err, out)
	}
}

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	var out map[string]any
	if err := yaml.UnmarshalStrict([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func shipped(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(e2e.Root(), e2e.ShippedConfig))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The sidecar's Envoy has the shipped configuration but for the one word that the overlay replaces.
func TestSidecarHasTheShippedEnvoy(t *testing.T) {
	t.Parallel()
	_, config := sidecarEnvoy(t, render(t, sidecar))
	const tcp = "cluster_name: gate # or gate_unix"
	if strings.Count(shipped(t), tcp) != 1 {
		t.Fatalf("%s has %q not exactly once", e2e.ShippedConfig, tcp)
	}
	want := strings.Replace(shipped(t), tcp, "cluster_name: gate_unix", 1)
	if !reflect.DeepEqual(parse(t, config), parse(t, want)) {
		t.Errorf("it differs in more, or not in that:\n%s", config)
	}
}

func TestSidecarOrder(t *testing.T) {
	t.Parallel()
	list := containers(render(t, sidecar))
	names := make([]string, 0, len(list))
	always := corev1.ContainerRestartPolicyAlways
	for _, c := range list {
		names = append(names, c.Name)
		native := c.RestartPolicy != nil && *c.RestartPolicy == always
		if native != (c.Name != "api") {
			t.Errorf("%s: a native sidecar is %v", c.Name, native)
		}
		// The next one starts as soon as this one is started, if nothing says when it serves.
		if native && c.StartupProbe == nil {
			t.Errorf("%s: no startupProbe", c.Name)
		}
	}
	if want := []string{"gate", "envoy", "api"}; !slices.Equal(names, want) {
		t.Errorf("started in the order %v, want %v", names, want)
	}
	if n := len(list[2].pod.Containers); n != 1 {
		t.Errorf("%d main containers, want 1", n)
	}
}

// The socket: in a volume that only gate and Envoy mount, under the name that both use, open to a group of both.
func TestSidecarSocket(t *testing.T) {
	t.Parallel()
	m := render(t, sidecar)
	_, settings := gate(t, m)
	path, ok := strings.CutPrefix(settings["GRPC_ADDR"], "unix://")
	if _, config := sidecarEnvoy(t, m); !ok || !strings.Contains(config, fmt.Sprintf("{pipe: {path: %s}}", path)) {
		t.Errorf("the gate listens on %s, Envoy asks elsewhere", settings["GRPC_ADDR"])
	}
	for _, c := range containers(m) {
		mounts := slices.ContainsFunc(c.VolumeMounts, func(v corev1.VolumeMount) bool { return v.MountPath == filepath.Dir(path) })
		if mounts != (c.Name != "api") {
			t.Errorf("%s mounts the socket's folder: %v", c.Name, mounts)
		}
		if c.pod.SecurityContext.FSGroup == nil {
			t.Error("without fsGroup, Envoy's user can't open the socket")
		}
	}
}

func TestSidecarEnvoyLoads(t *testing.T) {
	t.Parallel()
	c, config := sidecarEnvoy(t, render(t, sidecar))
	validate(t, envoyArgs(t, c, write(t, config))...)
}

// The pod's gate and Envoy, run with what the manifests give them, but for ports and the socket's folder.
func TestSidecarServes(t *testing.T) {
	t.Parallel()
	m := render(t, sidecar)
	dir, err := os.MkdirTemp("", "pod") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "gate.sock")

	_, settings := gate(t, m)
	delete(settings, "QUEUE_URL_FILE")
	maps.Copy(settings, map[string]string{
		"GRPC_ADDR": "unix://" + socket, "TELEMETRY_ADDR": "127.0.0.1:0", "QUEUE_URL": redistest.Start(t).URL(),
	})
	smallBuckets(t, settings["POLICY_FILE"])
	e2e.StartGate(t, settings)

	api := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(api.Close)
	_, apiPort, _ := net.SplitHostPort(api.Listener.Addr().String())

	c, config := sidecarEnvoy(t, m)
	replace := strings.NewReplacer("/run/refrakt/gate.sock", socket, "port_value: 8000", "port_value: "+apiPort,
		"port_value: 8080", "port_value: 0", "port_value: 9901", "port_value: 0", "port_value: 9902", "port_value: 0")
	args := envoyArgs(t, c, write(t, replace.Replace(config)))
	for i := range args {
		args[i] = replace.Replace(args[i])
	}
	admin := filepath.Join(dir, "admin")
	envoy := proctest.Start(t, proctest.Command{Name: "envoy", Path: e2e.Tool(t, "envoy"), Args: append(args, "--admin-address-path", admin)})

	var ports map[string]int
	polltest.Until(t, time.Minute, "Envoy's listeners", func() (err error) {
		if !envoy.Running() {
			t.Fatalf("Envoy ended with exit code %d", envoy.ExitCode())
		}
		ports, err = listeners(admin)
		return err
	})
	url := func(listener, path string) string {
		return "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[listener])) + path
	}
	polltest.Until(t, time.Minute, "the status port to say yes", func() error {
		return want(http.MethodGet, url("status", c.ReadinessProbe.HTTPGet.Path), http.StatusOK)
	})
	for _, step := range []struct {
		listener, path string
		status         int
	}{
		{"status", "/stats", http.StatusNotFound},
		{"ingress", "/ping", http.StatusOK},
		{"ingress", "/run", http.StatusOK},
		{"ingress", "/run%0a", http.StatusOK},
		{"ingress", "/run", http.StatusTooManyRequests},
	} {
		if err := want(http.MethodPost, url(step.listener, step.path), step.status); err != nil {
			t.Error(err)
		}
	}
}

// smallBuckets gives a caller of /run two requests at once.
func smallBuckets(t *testing.T, policies string) {
	t.Helper()
	text, err := os.ReadFile(policies)
	if err != nil {
		t.Fatal(err)
	}
	const shipped = "{per: ip, burst: 10, rate: 6/m}"
	if strings.Count(string(text), shipped) != 1 {
		t.Fatalf("the policies have %q not exactly once:\n%s", shipped, text)
	}
	small := strings.Replace(string(text), shipped, "{per: ip, burst: 2, rate: 6/m, name: few}", 1)
	if err := os.WriteFile(policies, []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
}

// listeners are the ports of Envoy's listeners by name, once both are there.
func listeners(adminFile string) (map[string]int, error) {
	admin, err := os.ReadFile(adminFile)
	if err != nil || len(admin) == 0 {
		return nil, errors.New("no admin address yet")
	}
	resp, err := http.Get("http://" + string(admin) + "/listeners?format=json")
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var found struct {
		Statuses []struct {
			Name  string `json:"name"`
			Local struct {
				Socket struct {
					Port int `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&found); err != nil {
		return nil, err
	}
	ports := map[string]int{}
	for _, s := range found.Statuses {
		ports[s.Name] = s.Local.Socket.Port
	}
	if ports["ingress"] == 0 || ports["status"] == 0 {
		return nil, fmt.Errorf("only %v", ports)
	}
	return ports, nil
}

func want(method, url string, status int) error {
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != status {
		return fmt.Errorf("%s %s: got %d, want %d", method, url, resp.StatusCode, status)
	}
	return nil
}

// sharedCluster is the snippet for the Envoy in front of the shared overlay.
func sharedCluster(t *testing.T) map[string]any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder(), "overlays", "shared", "envoy-cluster.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

// gateCluster is the shipped configuration and, within it, the place of the cluster that asks the gate over TCP.
func gateCluster(t *testing.T) (config map[string]any, cluster *any) {
	t.Helper()
	config = parse(t, shipped(t))
	clusters := config["static_resources"].(map[string]any)["clusters"].([]any)
	i := slices.IndexFunc(clusters, func(c any) bool { return c.(map[string]any)["name"] == "gate" })
	if i < 0 {
		t.Fatalf("no cluster gate in %s", e2e.ShippedConfig)
	}
	return config, &clusters[i]
}

// TestSharedClusterLoads puts the snippet into envoy.yaml as the documents say: in the place of the cluster `gate`. Envoy
// takes the result, with what it has for traces, too.
func TestSharedClusterLoads(t *testing.T) {
	t.Parallel()
	snippet := strings.TrimLeft(regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(read(t, filepath.Join(folder(), "overlays", "shared", "envoy-cluster.yaml")), ""), "\n")
	indented := "  - " + strings.ReplaceAll(strings.TrimRight(snippet, "\n"), "\n", "\n    ") + "\n"
	text := shipped(t)
	from, to := strings.Index(text, "  - name: gate\n"), strings.Index(text, "\n  # The same over a unix socket.")
	if from < 0 || to < from {
		t.Fatalf("no cluster gate in %s", e2e.ShippedConfig)
	}
	for _, config := range []string{text[:from] + indented + text[to:], strings.ReplaceAll(text[:from]+indented+text[to:], "#trace ", "")} {
		validate(t, "--config-path", write(t, config), "--disable-hot-restart")
	}
}

// The snippet finds the gates by DNS; in all else it is the shipped cluster.
func TestSharedCluster(t *testing.T) {
	t.Parallel()
	m := render(t, "overlays/shared")
	got := sharedCluster(t)
	service := one[*corev1.Service](t, m)
	address := fmt.Sprintf("%s.%s.svc.cluster.local", service.Name, service.Namespace)
	text, err := json.Marshal(got["load_assignment"])
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(`{"address":%q,"port_value":%d}`, address, service.Spec.Ports[0].Port); !strings.Contains(string(text), want) {
		t.Errorf("Envoy asks %s, the Service is %s", text, want)
	}
	if service.Spec.ClusterIP != corev1.ClusterIPNone {
		t.Error("the Service is not headless: its name is one address, and Envoy can't balance")
	}

	_, cluster := gateCluster(t)
	shipped := (*cluster).(map[string]any)
	for _, differs := range []string{"type", "load_assignment"} {
		delete(shipped, differs)
	}
	for name, want := range shipped {
		if !reflect.DeepEqual(got[name], want) {
			t.Errorf("%s: got %v, shipped is %v", name, got[name], want)
		}
	}
}
