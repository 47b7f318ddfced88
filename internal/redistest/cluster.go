package redistest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
)

// StartTCP runs a redis-server as [Start] does that also listens on a TCP port of
// 127.0.0.1, and returns its address too.
func StartTCP(tb testing.TB, args ...string) (s *Server, addr string) {
	tb.Helper()
	port := freePort(tb)
	s = Start(tb, append([]string{"--bind", "127.0.0.1", "--port", strconv.Itoa(port)}, args...)...)
	return s, local(port)
}

// Cluster is a Redis Cluster on 127.0.0.1.
type Cluster struct {
	// Primaries have equal parts of the slots, in their order; Replicas[i] replicates Primaries[i].
	Primaries, Replicas []*Server
	// Addrs are the TCP addresses of the primaries.
	Addrs []string
}

// slots is their number in every Redis Cluster.
const slots = 16384

// StartCluster starts a cluster of so many primaries, with one replica each if
// asked for, that goes on where a primary without one is lost.
func StartCluster(tb testing.TB, primaries int, replicas bool) *Cluster {
	tb.Helper()
	c := &Cluster{}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for i := range primaries {
		s, addr := startNode(tb)
		c.Primaries, c.Addrs = append(c.Primaries, s), append(c.Addrs, addr)
		must(tb, s.Client(tb).Do(ctx, "CLUSTER", "ADDSLOTSRANGE", i*slots/primaries, (i+1)*slots/primaries-1).Err())
	}
	if replicas {
		for range primaries {
			s, _ := startNode(tb)
			c.Replicas = append(c.Replicas, s)
		}
	}
	all := append(append([]*Server{}, c.Primaries...), c.Replicas...)
	for i, s := range all {
		must(tb, s.Client(tb).Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err())
	}
	for _, s := range all[1:] {
		host, port, _ := net.SplitHostPort(c.Addrs[0])
		must(tb, s.Client(tb).Do(ctx, "CLUSTER", "MEET", host, port, c.Primaries[0].bus(ctx, tb)).Err())
	}
	for _, s := range all {
		// Without full coverage the state is ok before a node has heard what the others have.
		waitInfo(ctx, tb, s.Client(tb), "cluster_state:ok", fmt.Sprint("cluster_known_nodes:", len(all)), fmt.Sprint("cluster_slots_assigned:", slots))
	}
	for i, s := range c.Replicas {
		id, err := c.Primaries[i].Client(tb).Do(ctx, "CLUSTER", "MYID").Text()
		must(tb, err)
		must(tb, s.Client(tb).Do(ctx, "CLUSTER", "REPLICATE", id).Err())
	}
	for _, s := range c.Replicas {
		wait(ctx, tb, "a replica to be in step", func() error {
			text, err := s.Client(tb).Info(ctx, "replication").Result()
			if err == nil && !strings.Contains(text, "master_link_status:up") {
				err = fmt.Errorf("not yet:\n%s", text)
			}
			return err
		})
	}
	return c
}

// URL is the cluster as RATE_LIMIT_REDIS_URL takes it.
func (c *Cluster) URL() string {
	return "redis://" + c.Addrs[0] + "?addr=" + strings.Join(c.Addrs[1:], "&addr=")
}

func startNode(tb testing.TB) (*Server, string) {
	tb.Helper()
	return StartTCP(tb, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(freePort(tb)),
		"--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0")
}

// bus is the port on which the server talks to others of its cluster.
func (s *Server) bus(ctx context.Context, tb testing.TB) string {
	tb.Helper()
	port, err := s.Client(tb).ConfigGet(ctx, "cluster-port").Result()
	must(tb, err)
	return port["cluster-port"]
}

func waitInfo(ctx context.Context, tb testing.TB, c *redis.Client, want ...string) {
	tb.Helper()
	wait(ctx, tb, "the cluster", func() error {
		text, err := c.ClusterInfo(ctx).Result()
		for _, w := range want {
			if err == nil && !strings.Contains(text, w+"\r\n") {
				err = fmt.Errorf("not %s:\n%s", w, text)
			}
		}
		return err
	})
}

func wait(ctx context.Context, tb testing.TB, what string, check func() error) {
	tb.Helper()
	if err := polltest.Wait(ctx, check); err != nil {
		tb.Fatalf("wait for %s: %v", what, err)
	}
}

// freePort is one that nobody listens on. Redis can't have the kernel choose, and
// one that the kernel had free a moment ago may be a connection's by now: it is
// taken from below those that the kernel gives away (ip(7), ip_local_port_range).
func freePort(tb testing.TB) int {
	tb.Helper()
	const lowest = 10000
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	must(tb, err)
	var end int
	_, err = fmt.Sscan(string(text), &end)
	must(tb, err)
	for range 100 {
		port := lowest + rand.IntN(end-lowest)
		l, err := net.Listen("tcp", local(port))
		if err == nil {
			l.Close()
			return port
		}
	}
	tb.Fatalf("no free port of 100 from %d to %d", lowest, end)
	return 0
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
