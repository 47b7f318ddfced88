// Package compose checks docker-compose.yml without a Docker engine: it is loaded by the compose specification's own
// library, compared with the files it goes together with, and its processes are run by hand.
package compose

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v3"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

func TestMain(m *testing.M) { os.Exit(e2e.Main(m)) }

func load(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(e2e.Root(), "docker-compose.yml")},
		cli.WithWorkingDirectory(e2e.Root()), cli.WithInterpolation(true), cli.WithConsistency(true), cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatalf("prepare to load docker-compose.yml: %v", err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatalf("load docker-compose.yml: %v", err)
	}
	return project
}

func TestComplete(t *testing.T) {
	t.Parallel()
	project := load(t)
	want := []string{"api", "envoy", "gate", "pod", "policies", "prometheus", "redis", "worker"}
	if got := slices.Sorted(slices.Values(project.ServiceNames())); !slices.Equal(got, want) {
		t.Errorf("services: got %v, want %v", got, want)
	}
	for service, s := range project.Services {
		if (s.Build == nil) == (s.Image == "") {
			t.Errorf("%s: want an image or a build, one of them", service)
		}
		images := []string{s.Image}
		if s.Build != nil {
			images = dockerfile(t, s).bases()
		}
		for _, image := range images {
			name, _, _ := strings.Cut(image, "@") // a digest, which scripts/digests.sh adds
			if _, tag, _ := strings.Cut(name, ":"); tag == "" || tag == "latest" {
				t.Errorf("%s: image %q is not pinned", service, image)
			}
		}
	}
}

// The Envoy that tests run and the Envoy that compose runs are the same.
func TestEnvoyVersion(t *testing.T) {
	t.Parallel()
	requirements, err := os.ReadFile(filepath.Join(e2e.Root(), "examples", "requirements-dev.txt"))
	if err != nil {
		t.Fatal(err)
	}
	services := load(t).Services
	for _, image := range []string{services["pod"].Image, dockerfile(t, services["envoy"]).bases()[0], dockerfile(t, services["policies"]).bases()[0]} {
		_, tag, _ := strings.Cut(image, "envoyproxy/envoy:v")
		tag, _, _ = strings.Cut(tag, "@")
		if !strings.Contains(string(requirements), "\nenvoy-server=="+tag+"\n") {
			t.Errorf("compose runs Envoy %q, requirements-dev.txt has another: %s", tag, requirements)
		}
	}
}

func TestGateSettings(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for line := range strings.Lines(e2e.Config(t, nil)) {
		name, _, _ := strings.Cut(line, "=")
		known[name] = true
	}
	settings := gateSettings(t, load(t).Services)
	for name := range settings {
		if !known[name] {
			t.Errorf("the gate knows no %s", name)
		}
	}
	e2e.Config(t, settings) // fails on a value the gate refuses
}

// envoyYAML is of envoy.yaml what concerns addresses.
type envoyYAML struct {
	Static struct {
		Listeners []struct {
			Address address `yaml:"address"`
		} `yaml:"listeners"`
		Clusters []struct {
			Name       string `yaml:"name"`
			Assignment struct {
				Endpoints []struct {
					LB []struct {
						Endpoint struct {
							Address address `yaml:"address"`
						} `yaml:"endpoint"`
					} `yaml:"lb_endpoints"`
				} `yaml:"endpoints"`
			} `yaml:"load_assignment"`
		} `yaml:"clusters"`
	} `yaml:"static_resources"`
}

type address struct {
	Socket struct {
		Address string `yaml:"address"`
		Port    string `yaml:"port_value"`
	} `yaml:"socket_address"`
}

func (a address) String() string { return net.JoinHostPort(a.Socket.Address, a.Socket.Port) }

func TestAddressesAgree(t *testing.T) {
	t.Parallel()
	project := load(t)
	gate, api, pod := project.Services["gate"], project.Services["api"], project.Services["pod"]
	for _, s := range []types.ServiceConfig{gate, api, project.Services["envoy"]} {
		if s.NetworkMode != "service:pod" {
			t.Errorf("%s: network_mode is %q, but envoy.yaml looks for all of them on loopback", s.Name, s.NetworkMode)
		}
		if d := s.DependsOn["pod"]; !d.Restart {
			t.Errorf("%s does not restart with the owner of its network", s.Name)
		}
	}

	var config envoyYAML
	readYAML(t, "envoy/envoy.yaml", &config)
	clusters := map[string]string{}
	for _, c := range config.Static.Clusters {
		clusters[c.Name] = c.Assignment.Endpoints[0].LB[0].Endpoint.Address.String()
	}
	settings := environment(gate)
	if got, want := settings["GRPC_ADDR"], clusters["gate"]; got != want {
		t.Errorf("the gate listens on %s, Envoy asks %s", got, want)
	}
	if got, want := apiAddress(api.Command), clusters["api"]; got != want {
		t.Errorf("the API listens on %s, Envoy asks %s", got, want)
	}
	if health := strings.Join(api.HealthCheck.Test, " "); !strings.Contains(health, "http://"+clusters["api"]+"/ping") {
		t.Errorf("the API's health check asks elsewhere: %s", health)
	}

	_, telemetry, _ := net.SplitHostPort(settings["TELEMETRY_ADDR"])
	published := map[string]bool{}
	for _, p := range pod.Ports {
		published[fmt.Sprint(p.Target)] = true
	}
	for _, port := range []string{config.Static.Listeners[0].Address.Socket.Port, telemetry} {
		if !published[port] {
			t.Errorf("port %s is not published by pod, which owns the network", port)
		}
	}
}

func TestPrometheusFindsTheGate(t *testing.T) {
	t.Parallel()
	var config struct {
		Rules []string `yaml:"rule_files"`
		Jobs  []struct {
			Path    string `yaml:"metrics_path"`
			Targets []struct {
				Targets []string `yaml:"targets"`
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	readYAML(t, "deploy/prometheus/prometheus.yml", &config)
	project := load(t)
	settings := environment(project.Services["gate"])
	_, telemetry, err := net.SplitHostPort(settings["TELEMETRY_ADDR"])
	if err != nil {
		t.Fatalf("TELEMETRY_ADDR: %v", err)
	}
	// The gate has no network of its own: it is found under the name that the network's owner has for it.
	want := net.JoinHostPort("gate", telemetry)
	if n := project.Services["pod"].Networks["default"]; n == nil || !slices.Contains(n.Aliases, "gate") {
		t.Error("the owner of the gate's network is not called gate")
	}
	if got := config.Jobs[0].Targets[0].Targets; !slices.Equal(got, []string{want}) {
		t.Errorf("scrape targets: got %v, want [%s]", got, want)
	}
	root := dockerfile(t, project.Services["prometheus"]).play(t)
	if rules, err := filepath.Glob(filepath.Join(root, "etc/prometheus", config.Rules[0])); err != nil || len(rules) == 0 {
		t.Errorf("no rules where Prometheus looks for them: %v", err)
	}
	if got, want := cmp.Or(config.Jobs[0].Path, "/metrics"), cmp.Or(settings["PROMETHEUS_METRICS_ROUTE"], "/metrics"); got != want {
		t.Errorf("metrics path: got %s, want %s", got, want)
	}
}

func environment(s types.ServiceConfig) map[string]string {
	env := map[string]string{}
	for name, value := range s.Environment {
		if value != nil {
			env[name] = *value
		}
	}
	return env
}

// apiAddress is the address in `uvicorn … --host H --port P`.
func apiAddress(command []string) string {
	argument := func(flag string) string {
		if i := slices.Index(command, flag); i >= 0 && i+1 < len(command) {
			return command[i+1]
		}
		return ""
	}
	return net.JoinHostPort(argument("--host"), argument("--port"))
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(e2e.Root(), path))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("parse %s: %v", path, err)
	}
}
