package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Sentinel is a master with a replica and three sentinels that watch them.
type Sentinel struct {
	Master, Replica *Server
	Sentinels       []*Server

	addrs []string
}

const masterName = "mymaster"

// StartSentinel starts all of them and waits until the sentinels know each other
// and the replica is in step. A master that is lost is given up after a second.
func StartSentinel(tb testing.TB) *Sentinel {
	tb.Helper()
	s := &Sentinel{}
	var addr string
	s.Master, addr = StartTCP(tb)
	host, port, _ := net.SplitHostPort(addr)
	s.Replica, _ = StartTCP(tb, "--replicaof", host+" "+port)
	conf := fmt.Sprintf("sentinel monitor %[1]s %s %s 2\nsentinel down-after-milliseconds %[1]s 1000\nsentinel failover-timeout %[1]s 5000\n",
		masterName, host, port)
	s.Sentinels = make([]*Server, 3)
	for i := range s.Sentinels {
		p := strconv.Itoa(freePort(tb))
		s.Sentinels[i] = start(tb, func(dir string) []string {
			file := filepath.Join(dir, "sentinel.conf")
			must(tb, os.WriteFile(file, []byte(conf), 0o600))
			return []string{file, "--sentinel"}
		}, "--bind", "127.0.0.1", "--port", p)
		s.addrs = append(s.addrs, net.JoinHostPort("127.0.0.1", p))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, w := range s.Sentinels {
		wait(ctx, tb, "the sentinels to know each other", func() error {
			text, err := w.Client(tb).Info(ctx, "sentinel").Result()
			if err == nil && !strings.Contains(text, "slaves=1,sentinels=3") {
				err = fmt.Errorf("not yet:\n%s", text)
			}
			return err
		})
	}
	return s
}

// URL is the master as QUEUE_URL takes it.
func (s *Sentinel) URL() string {
	return "redis://" + s.addrs[0] + "?master_name=" + masterName + "&addr=" + strings.Join(s.addrs[1:], "&addr=")
}
