package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
)

// The addresses of an Envoy configuration, as both of ours spell them.
const (
	listenAddress = "{address: 0.0.0.0, port_value: 8080}"
	adminAddress  = "{address: 127.0.0.1, port_value: 9901}"
	apiAddress    = "{address: 127.0.0.1, port_value: 8000}"
	gateEndpoint  = "endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9001}}}"
	gateSocket    = "{pipe: {path: /run/refrakt/gate.sock}}"
	gateCluster   = "cluster_name: gate # or gate_unix"
)

// Configurations, relative to the repository (others by their absolute path).
const (
	ShippedConfig = "envoy/envoy.yaml"
	RawConfig     = "test/e2e/testdata/envoy-raw.yaml" // normalises nothing, checks every route, no policy
)

// PatientConfig is the shipped configuration with an Envoy that waits long for the gate: on a machine that stalls, the
// usual 0.25 s would make Envoy answer in the gate's place.
func PatientConfig(tb testing.TB) string {
	tb.Helper()
	const usual = "\n                timeout: 0.25s\n"
	text, err := os.ReadFile(filepath.Join(Root(), ShippedConfig))
	if err != nil {
		tb.Fatal(err)
	}
	if n := strings.Count(string(text), usual); n != 1 {
		tb.Fatalf("%q is in the configuration %d times, want once", usual, n)
	}
	file := filepath.Join(tb.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), usual, "\n                timeout: 20s\n", 1)), 0o600); err != nil {
		tb.Fatal(err)
	}
	return file
}

// Envoy is one running Envoy.
type Envoy struct {
	*proctest.Process

	Addr      string   // of the listener
	MoreAddrs []string // its additional_addresses, if the configuration has any
	Admin     string
	Version   string // as it says itself
}

// StartEnvoy starts an Envoy with the configuration, its addresses replaced, in front of api and gates ("host:port"
// each, or a single "unix:///path"), and waits until it serves.
func StartEnvoy(tb testing.TB, config, api string, gates ...string) *Envoy {
	tb.Helper()
	return StartOtherEnvoy(tb, "", config, api, gates...)
}

// StartOtherEnvoy does the same with another version of Envoy, one of OtherEnvoys.
func StartOtherEnvoy(tb testing.TB, version, config, api string, gates ...string) *Envoy {
	tb.Helper()
	dir := tb.TempDir()
	if !filepath.IsAbs(config) {
		config = filepath.Join(Root(), config)
	}
	text, err := os.ReadFile(config)
	if err != nil {
		tb.Fatalf("read Envoy configuration: %v", err)
	}
	rewritten, err := Rewrite(string(text), api, gates...)
	if err != nil {
		tb.Fatalf("rewrite %s: %v", config, err)
	}
	file := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(file, []byte(rewritten), 0o600); err != nil {
		tb.Fatalf("write Envoy configuration: %v", err)
	}
	return launchEnvoy(tb, version, file)
}

// StartEnvoyAsShipped starts an Envoy with ShippedConfig on its own ports.
func StartEnvoyAsShipped(tb testing.TB) *Envoy {
	tb.Helper()
	return launchEnvoy(tb, "", filepath.Join(Root(), ShippedConfig))
}

func launchEnvoy(tb testing.TB, version, file string) *Envoy {
	tb.Helper()
	adminFile := filepath.Join(tb.TempDir(), "admin")
	e := &Envoy{}
	e.Process = proctest.Start(tb, proctest.Command{
		Name: "envoy", Path: envoyBinary(tb, version), Env: []string{"PATH=" + os.Getenv("PATH")},
		Args: []string{
			"-c", file, "--admin-address-path", adminFile, "--disable-hot-restart", "--concurrency", "2",
			"--log-level", "warn", "--file-flush-interval-msec", "50", "--drain-time-s", "1",
		},
	})
	polltest.Until(tb, proctest.StartTimeout, "envoy to serve", func() error {
		if !e.Running() {
			tb.Fatalf("envoy ended with exit code %d", e.ExitCode())
		}
		admin, err := os.ReadFile(adminFile)
		if err != nil || len(admin) == 0 {
			return errors.New("no admin address yet")
		}
		e.Admin = string(admin)
		return e.ready()
	})
	addrs := e.listener(tb)
	e.Addr, e.MoreAddrs = addrs[0], addrs[1:]
	if e.Version = e.version(tb); version != "" && e.Version != version {
		tb.Fatalf("Envoy %s says that it is %s", version, e.Version)
	}
	return e
}

// Rewrite puts other addresses into an Envoy configuration. Each must be in it exactly once, so that a changed
// configuration can't be tested with an address left in it.
func Rewrite(text, api string, gates ...string) (string, error) {
	replace := map[string]string{
		listenAddress: "{address: 127.0.0.1, port_value: 0}",
		adminAddress:  "{address: 127.0.0.1, port_value: 0}",
		apiAddress:    socketAddress(api),
	}
	if path, ok := strings.CutPrefix(gates[0], "unix://"); ok {
		replace[gateSocket] = fmt.Sprintf("{pipe: {path: %s}}", path)
		replace[gateCluster] = "cluster_name: gate_unix"
		// Nothing listens on port 1: the health checks of the unused cluster must not find a stranger.
		gates = []string{"127.0.0.1:1"}
	}
	endpoints := make([]string, 0, len(gates))
	for _, g := range gates {
		endpoints = append(endpoints, fmt.Sprintf("endpoint: {address: {socket_address: %s}}", socketAddress(g)))
	}
	replace[gateEndpoint] = strings.Join(endpoints, "\n        - ")

	oldnew := make([]string, 0, 2*len(replace))
	for from, to := range replace {
		if n := strings.Count(text, from); n != 1 {
			return "", fmt.Errorf("%q is in it %d times, want once", from, n)
		}
		oldnew = append(oldnew, from, to)
	}
	return strings.NewReplacer(oldnew...).Replace(text), nil
}

func socketAddress(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		panic(err) // a mistake in a test
	}
	return fmt.Sprintf("{address: %s, port_value: %s}", host, port)
}

func (e *Envoy) ready() error {
	resp, err := client.Get("http://" + e.Admin + "/ready")
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ready: %s", body)
	}
	return nil
}

// listener finds the addresses of the one listener.
func (e *Envoy) listener(tb testing.TB) (addrs []string) {
	tb.Helper()
	type address struct {
		Socket struct {
			Address string `json:"address"`
			Port    int    `json:"port_value"`
		} `json:"socket_address"`
	}
	r := do(tb, http.MethodGet, "http://"+e.Admin+"/listeners?format=json", nil, nil)
	var found struct {
		Statuses []struct {
			Local address   `json:"local_address"`
			More  []address `json:"additional_local_addresses"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal([]byte(r.Body), &found); err != nil || len(found.Statuses) != 1 {
		tb.Fatalf("find the listener: %v in %s", err, r.Body)
	}
	for _, a := range append([]address{found.Statuses[0].Local}, found.Statuses[0].More...) {
		addrs = append(addrs, net.JoinHostPort(a.Socket.Address, strconv.Itoa(a.Socket.Port)))
	}
	return addrs
}

// version is the version alone of "<commit>/1.40.0/Clean/RELEASE/BoringSSL".
func (e *Envoy) version(tb testing.TB) string {
	tb.Helper()
	r := do(tb, http.MethodGet, "http://"+e.Admin+"/server_info", nil, nil)
	var info struct {
		Version string `json:"version"`
	}
	err := json.Unmarshal([]byte(r.Body), &info)
	parts := strings.Split(info.Version, "/")
	if err != nil || len(parts) < 2 {
		tb.Fatalf("find the version: %v in %s", err, r.Body)
	}
	return parts[1]
}

// Stat is one of Envoy's own figures, "" if there is none of this name.
func (e *Envoy) Stat(tb testing.TB, name string) string {
	tb.Helper()
	r := do(tb, http.MethodGet, "http://"+e.Admin+"/stats?filter=^"+name+"$", nil, nil)
	_, value, _ := strings.Cut(strings.TrimSpace(r.Body), ": ")
	return value
}

// Post sends a POST without a body; headers are lines of the form "Name: value".
func (e *Envoy) Post(tb testing.TB, path string, headers ...string) Response {
	tb.Helper()
	return do(tb, http.MethodPost, "http://"+e.Addr+path, nil, headers)
}

// PostJSON sends a POST with a JSON body.
func (e *Envoy) PostJSON(tb testing.TB, path, body string, headers ...string) Response {
	tb.Helper()
	headers = append([]string{"Content-Type: application/json"}, headers...)
	return do(tb, http.MethodPost, "http://"+e.Addr+path, strings.NewReader(body), headers)
}

// Get sends a GET.
func (e *Envoy) Get(tb testing.TB, path string, headers ...string) Response {
	tb.Helper()
	return do(tb, http.MethodGet, "http://"+e.Addr+path, nil, headers)
}

// Raw sends these very lines: a request line ("POST //run HTTP/1.1") and headers, repeated ones too.
func (e *Envoy) Raw(tb testing.TB, requestLine string, headers ...string) Response {
	tb.Helper()
	return raw(tb, e.Addr, requestLine, headers)
}
