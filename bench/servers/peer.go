package servers

import (
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/refrakt-hub/refrakt-gate/bench/process"
)

// The limits of envoyproxy/ratelimit, by domain. A day's window does not begin anew while it is measured.
const (
	peerMinute = `domain: minute
descriptors:
- {key: ip, rate_limit: {unit: minute, requests_per_unit: 30}}
- {key: user, rate_limit: {unit: minute, requests_per_unit: 30}}
`
	peerDay = `domain: day
descriptors:
- {key: ip, rate_limit: {unit: day, requests_per_unit: 30}}
- {key: user, rate_limit: {unit: day, requests_per_unit: 30}}
`
)

// StartPeer runs an envoyproxy/ratelimit with its defaults, save for addresses, env and statistics: they are off,
// because there is no statsd.
func StartPeer(g *process.Group, binary, name string, env ...string) (*Server, error) {
	r, err := StartRedis(g, name+"-redis")
	if err != nil {
		return nil, err
	}
	config := filepath.Join(g.Dir, name+".config", "bench", "config")
	if err := os.MkdirAll(config, 0o750); err != nil {
		return nil, fmt.Errorf("create the peer's folder: %w", err)
	}
	for file, text := range map[string]string{"minute.yaml": peerMinute, "day.yaml": peerDay} {
		if err := os.WriteFile(filepath.Join(config, file), []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("write the peer's limits: %w", err)
		}
	}
	var ports [3]string
	for i := range ports {
		addr, err := freePort(g.Context())
		if err != nil {
			return nil, err
		}
		_, ports[i], _ = net.SplitHostPort(addr)
	}
	p, err := g.Start(name, append([]string{
		"RUNTIME_ROOT=" + filepath.Join(g.Dir, name+".config"), "RUNTIME_SUBDIRECTORY=bench", "RUNTIME_WATCH_ROOT=false",
		"GRPC_HOST=127.0.0.1", "GRPC_PORT=" + ports[0], "HOST=127.0.0.1", "PORT=" + ports[1], "DEBUG_HOST=127.0.0.1", "DEBUG_PORT=" + ports[2],
		"USE_STATSD=false", "DISABLE_STATS=true", "REDIS_SOCKET_TYPE=tcp", "REDIS_URL=" + r.Addr,
	}, env...), binary)
	if err != nil {
		return nil, err
	}
	s := &Server{Process: p, Addr: "127.0.0.1:" + ports[0], Redis: r, Allocations: "http://127.0.0.1:" + ports[2] + "/debug/pprof/heap?debug=1"}
	return s, p.Until(func() error { return listens(g.Context(), s.Addr) })
}
