package e2e_test

import (
	"crypto/rsa"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

var update = flag.Bool("update", false, "write docs/attacks.md instead of comparing")

const attacksDoc = "docs/attacks.md"

// TestNobodyGetsAround plays every attack on every version of Envoy, by both protocols. docs/attacks.md is what the clients
// get, word for word. The test starts many processes, so it does not run in parallel with others.
func TestNobodyGetsAround(t *testing.T) {
	redis := redistest.Start(t)
	api := e2e.StartAPI(t, redis.URL())
	key, stranger := rsaKey(t), rsaKey(t)
	var shipped, standard results // of the gate as it is shipped, and with the other codec
	var jobs sync.Map
	t.Run("play", func(t *testing.T) {
		play := func(version string, results *results, settings map[string]string) {
			t.Run("envoy"+version+settings["GRPC_CODEC"], func(t *testing.T) {
				t.Parallel()
				s := &stage{key: key, stranger: stranger, jobs: &jobs}
				byHeaders := map[string]string{"TRUSTED_PROXIES": "127.0.0.1," + ownAddresses(t)}
				maps.Copy(byHeaders, settings)
				s.byHeaders = startFront(t, version, e2e.ShippedConfig, api, byHeaders)
				byTokens := map[string]string{"TRUSTED_PROXIES": "127.0.0.1,::1," + ownAddresses(t), "USER_ID_SOURCES": "jwt"}
				maps.Copy(byTokens, settings)
				s.byTokens = startFront(t, version, withJWT(t, &key.PublicKey), api, byTokens)
				t.Run("by", func(t *testing.T) {
					for _, protocol := range protocols {
						t.Run(protocol, func(t *testing.T) {
							t.Parallel()
							s.playAll(t, protocol, results)
						})
					}
				})
				// No attack makes the gate warn about the settings of this Envoy.
				wantWarnings(t, s.byHeaders, "client", "client_ip_header")
				wantWarnings(t, s.byTokens)
			})
		}
		for _, version := range append(e2e.OtherEnvoys(t), "") {
			play(version, &shipped, nil)
		}
		play("", &standard, map[string]string{"GRPC_CODEC": "standard"})
	})
	if t.Failed() {
		return
	}
	for row, byVersion := range standard.got {
		for version, got := range byVersion {
			if want := shipped.got[row][version]; got != want {
				t.Errorf("%s\nwith GRPC_CODEC=standard: %s, else %s", row, got, want)
			}
		}
	}
	// A job that no client was told of was hidden in another request.
	queued, err := redis.Client(t).LRange(t.Context(), "saq:default:queued", 0, -1).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range queued {
		if _, told := jobs.Load(strings.TrimPrefix(id, "saq:job:default:")); !told {
			t.Errorf("the job %s: nobody was told of it", id)
		}
	}
	if len(queued) < 100 {
		t.Errorf("%d jobs: the clients that paid have not reached the API", len(queued))
	}

	file, got := filepath.Join(e2e.Root(), attacksDoc), shipped.document()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what the clients got. `cd test && go test ./e2e -run TestNobodyGetsAround -update` writes it anew; then look at the difference:\n%s",
			attacksDoc, firstDifference(string(want), got))
	}
}

// wantWarnings checks about which settings the gate warns.
func wantWarnings(t *testing.T, f front, want ...string) {
	t.Helper()
	metrics := f.gate.Metrics(t)
	for _, about := range []string{"path", "policy", "headers", "client", "client_ip_header"} {
		n := metrics[fmt.Sprintf("refrakt_gate_envoy_doubts_total{about=%q}", about)]
		if slices.Contains(want, about) != (n > 0) {
			t.Errorf("warnings about %s: %v, want warnings about %q only", about, n, want)
		}
	}
}

// stage has one version of Envoy.
type stage struct {
	byHeaders, byTokens front
	key, stranger       *rsa.PrivateKey
	jobs                *sync.Map // the jobs that clients were told of
	rows                atomic.Int32
}

// front is an Envoy with a gate of its own.
type front struct {
	*e2e.Envoy

	gate *e2e.Gate
}

// startFront starts a front. The gate's buckets hold one token. Envoy listens on IPv4, on IPv6, and on IPv4 in IPv6.
func startFront(t *testing.T, version, config string, api *e2e.API, settings map[string]string) front {
	t.Helper()
	all := map[string]string{
		"RATE_LIMIT_RUN_BURST": "1", "RATE_LIMIT_RUN_PER_MINUTE": "1", "RATE_LIMIT_PREMIUM_MULTIPLIER": "2",
		"RATE_LIMIT_ASSISTANT_BURST": "1", "RATE_LIMIT_ASSISTANT_PER_MINUTE": "1",
	}
	maps.Copy(all, settings)
	const (
		address = "    address: {socket_address: {address: 0.0.0.0, port_value: 8080}}\n"
		prefix  = "          stat_prefix: ingress\n"
		timeout = "                timeout: 0.25s\n"
		health  = "    - timeout: 1s\n"
	)
	config = edited(t, config, map[string]string{
		address: `    address: {socket_address: {address: "::", port_value: 0, ipv4_compat: true}}
    additional_addresses:
    - address: {socket_address: {address: 0.0.0.0, port_value: 8080}}
    - address: {socket_address: {address: "::1", port_value: 0}}
`,
		// So that the test does not wait a whole second when Envoy hangs up.
		prefix: prefix + "          delayed_close_timeout: 0.5s\n",
		// So that the gate answers even if the machine stalls.
		timeout: "                timeout: 20s\n", health: "    - timeout: 20s\n",
	})
	gate := e2e.StartGate(t, all)
	return front{e2e.StartOtherEnvoy(t, version, config, api.Addr, gate.GRPC), gate}
}

// ownAddresses returns the addresses that Envoy may append to X-Forwarded-For for a peer on loopback.
func ownAddresses(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var own []string
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() {
			own = append(own, n.IP.String())
		}
	}
	return strings.Join(own, ",")
}

const (
	overHTTP1 = "HTTP/1.1"
	overHTTP2 = "HTTP/2"
)

var protocols = []string{overHTTP1, overHTTP2}

func (a attack) sayable(protocol string) bool {
	if protocol == overHTTP1 {
		return a.fields == nil
	}
	return a.text == ""
}

func (s *stage) playAll(t *testing.T, protocol string, results *results) {
	t.Helper()
	for _, g := range attacks() {
		for _, a := range g.rows {
			if a.sayable(protocol) {
				results.add(g, a, protocol, s.byHeaders.Version, s.play(t, g, a, protocol))
			}
		}
	}
}

// play plays one row, checks it, and returns what the client got.
func (s *stage) play(t *testing.T, g group, a attack, protocol string) string {
	t.Helper()
	got, want := s.once(t, g, a, protocol)
	if want != "" && g.rule == charged {
		// Some rows share a bucket (that of ::1, or of this machine), which gains a token each minute: perhaps just now.
		// A real hole is still there with other addresses.
		got, want = s.once(t, g, a, protocol)
	}
	if want != "" {
		t.Errorf("%s: %s, by %s: got %s, want %s", g.title, a.describe(), a.from, got, want)
	}
	return got
}

// once plays a row with addresses, a user and tokens of its own. If the client got something else than the rule demands,
// want says what it should have got.
func (s *stage) once(t *testing.T, g group, a attack, protocol string) (got, want string) {
	t.Helper()
	p := s.player(t, g, a, protocol)
	if g.rule != spared {
		spend := a.spend
		if spend == nil {
			spend = a.headers
		}
		p.empty(t, spend)
	}
	if g.rule == another && a.from != proxy {
		p.wire.From = s.nextClient()
	}
	got = p.try(t, a)
	switch g.rule {
	case noJob:
		if strings.Contains(got, "202") {
			want = "no job"
		}
	case charged:
		if got != limited {
			want = limited
		}
	case passes:
		if got == refused || strings.Contains(got, "429") || strings.Contains(got, "503") {
			want = "an answer of the API's"
		}
	case another:
		if got != accepted {
			want = accepted
		}
	case spared:
		if victim := p.victim(t); victim != accepted {
			want = "a victim who is let through, who got " + victim
		}
	}
	return got, want
}

func (s *stage) nextClient() string {
	n := s.rows.Add(1)
	return fmt.Sprintf("127.1.%d.%d", n>>8, n&255)
}
