package servers

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

	"github.com/refrakt-hub/refrakt-gate/bench/process"
)

// Envoy is an Envoy with the shipped configuration.
type Envoy struct {
	Binary, Config string // the program, and the shipped configuration
	Workers        int
	// API is the address that the routes lead to; empty: Envoy answers by itself.
	API string
	// RateLimit says that what it asks is an envoyproxy/ratelimit, by Envoy's filter for that.
	RateLimit bool
}

// What is replaced in the shipped configuration.
const (
	listenAddress = "{address: 0.0.0.0, port_value: 8080}"
	adminAddress  = "{address: 127.0.0.1, port_value: 9901}"
	apiAddress    = "{address: 127.0.0.1, port_value: 8000}"
	gateAddress   = "{address: 127.0.0.1, port_value: 9001}"
	anyPort       = "{address: 127.0.0.1, port_value: 0}"
	apiRoute      = "route: {cluster: api, timeout: 60s}"
	ownAnswer     = "direct_response: {status: 200, body: {inline_string: ok}}"
	gateFilter    = "          - name: envoy.filters.http.ext_authz\n"
	nextFilter    = "          - name: envoy.filters.http.router\n"
	allDomains    = "domains: [\"*\"]\n"
	healthService = "service_name: envoy.service.auth.v3.Authorization"
)

const rateLimitFilter = `          - name: envoy.filters.http.ratelimit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
              domain: minute
              timeout: 0.25s
              failure_mode_deny: true
              rate_limit_service:
                transport_api_version: V3
                grpc_service: {envoy_grpc: {cluster_name: gate}}
`

const rateLimitActions = allDomains + `              rate_limits:
              - actions: [{request_headers: {header_name: cf-connecting-ip, descriptor_key: ip}}]
              - actions: [{request_headers: {header_name: x-user-id, descriptor_key: user}}]
`

// config is the shipped configuration with other addresses. What it replaces must be there, so that a change of the
// configuration is not overlooked.
func (e Envoy) config(behind string) (string, error) {
	shipped, err := os.ReadFile(e.Config)
	if err != nil {
		return "", fmt.Errorf("read Envoy's configuration: %w", err)
	}
	text := string(shipped)
	if e.RateLimit {
		begin, end := strings.Index(text, gateFilter), strings.Index(text, nextFilter)
		if begin < 0 || end < begin {
			return "", fmt.Errorf("%s has no filter of the gate before the router", e.Config)
		}
		text = text[:begin] + rateLimitFilter + text[end:]
	}
	replacements := [][2]string{{listenAddress, anyPort}, {adminAddress, anyPort}, {gateAddress, socketAddress(behind)}}
	if e.API == "" {
		replacements = append(replacements, [2]string{apiRoute, ownAnswer})
	} else {
		replacements = append(replacements, [2]string{apiAddress, socketAddress(e.API)})
	}
	if e.RateLimit {
		replacements = append(replacements, [2]string{allDomains, rateLimitActions}, [2]string{healthService, "service_name: ratelimit"})
	}
	for _, r := range replacements {
		if !strings.Contains(text, r[0]) {
			return "", fmt.Errorf("%s has no %q", e.Config, r[0])
		}
		text = strings.ReplaceAll(text, r[0], r[1])
	}
	return text, nil
}

func socketAddress(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf("{address: %s, port_value: %s}", host, port)
}

// Start runs Envoy in front of a server, and waits until it lets requests through. Its access log goes nowhere.
func (e Envoy) Start(g *process.Group, name string, behind *Server) (*Server, error) {
	text, err := e.config(behind.Addr)
	if err != nil {
		return nil, err
	}
	file, adminFile := filepath.Join(g.Dir, name+".yaml"), filepath.Join(g.Dir, name+".admin")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write Envoy's configuration: %w", err)
	}
	p, err := g.StartSilent(name, nil, e.Binary, "-c", file, "--admin-address-path", adminFile,
		"--concurrency", strconv.Itoa(e.Workers), "--disable-hot-restart", "--log-level", "warn")
	if err != nil {
		return nil, err
	}
	s := &Server{Process: p, Redis: behind.Redis}
	return s, p.Until(func() error {
		admin, err := os.ReadFile(adminFile)
		if err != nil || len(admin) == 0 {
			return errors.New("no admin address yet")
		}
		if s.Addr, err = listener(g, string(admin)); err != nil {
			return err
		}
		_, err = get(g, "http://"+s.Addr+"/assistant")
		return err
	})
}

// listener is the address on which Envoy listens for requests.
func listener(g *process.Group, admin string) (string, error) {
	text, err := get(g, "http://"+admin+"/listeners?format=json")
	if err != nil {
		return "", err
	}
	var listeners struct {
		Statuses []struct {
			Address struct {
				Socket struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal(text, &listeners); err != nil {
		return "", fmt.Errorf("read Envoy's listeners: %w", err)
	}
	if len(listeners.Statuses) != 1 || listeners.Statuses[0].Address.Socket.Port == 0 {
		return "", fmt.Errorf("unexpected listeners of Envoy: %s", text)
	}
	at := listeners.Statuses[0].Address.Socket
	return net.JoinHostPort(at.Address, strconv.Itoa(at.Port)), nil
}

// get is the body at a URL that answers 200.
func get(g *process.Group, url string) ([]byte, error) {
	ask, err := http.NewRequestWithContext(g.Context(), http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	ask.Header.Set("cf-connecting-ip", "100.99.0.1")
	ask.Header.Set("x-user-id", "nobody")
	answer, err := http.DefaultClient.Do(ask)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %d", url, answer.StatusCode)
	}
	return body, err
}
