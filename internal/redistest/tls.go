package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/certtest"
)

// TLS is the certificate of servers that speak TLS, and the CA that signed it.
type TLS struct {
	Pair certtest.Pair
	CA   *certtest.CA
}

// StartTLS runs a redis-server as [Start] does that also speaks TLS on a port of
// 127.0.0.1, and returns that port's address. It asks its clients for no certificate
// unless args say so ("--tls-auth-clients", "yes").
func StartTLS(tb testing.TB, t TLS, args ...string) (s *Server, addr string) {
	tb.Helper()
	port := freePort(tb)
	s = start(tb, func(dir string) []string { return t.args(tb, dir, port) }, args...)
	return s, local(port)
}

// StartTLSCluster starts a cluster of one server and returns its TLS address.
func StartTLSCluster(tb testing.TB, t TLS) (addr string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, addr := StartTLS(tb, t, "--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", strconv.Itoa(freePort(tb)))
	must(tb, s.Client(tb).Do(ctx, "CLUSTER", "ADDSLOTSRANGE", 0, slots-1).Err())
	waitInfo(ctx, tb, s.Client(tb), "cluster_state:ok")
	return addr
}

// StartTLSSentinel starts a master and one sentinel of it, and returns the sentinel's
// TLS address with the parameter that names the master.
func StartTLSSentinel(tb testing.TB, t TLS) (addr string) {
	tb.Helper()
	_, master := StartTLS(tb, t)
	host, masterPort, _ := net.SplitHostPort(master)
	port := freePort(tb)
	start(tb, func(dir string) []string {
		file := filepath.Join(dir, "sentinel.conf")
		must(tb, os.WriteFile(file, fmt.Appendf(nil, "sentinel monitor %s %s %s 1\n", masterName, host, masterPort), 0o600))
		return slices.Concat([]string{file, "--sentinel"}, t.args(tb, dir, port))
	}, "--tls-replication", "yes")
	return local(port) + "?master_name=" + masterName
}

// args writes the files and names them in arguments of a server.
func (t TLS) args(tb testing.TB, dir string, port int) []string {
	tb.Helper()
	files := map[string][]byte{"tls.crt": t.Pair.Cert, "tls.key": t.Pair.Key, "ca.crt": t.CA.Cert}
	for name, content := range files {
		must(tb, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	return []string{
		"--bind", "127.0.0.1", "--tls-port", strconv.Itoa(port), "--tls-auth-clients", "no",
		"--tls-cert-file", filepath.Join(dir, "tls.crt"), "--tls-key-file", filepath.Join(dir, "tls.key"),
		"--tls-ca-cert-file", filepath.Join(dir, "ca.crt"),
	}
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
