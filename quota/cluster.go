package quota

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/breaker"
)

// Topology knows which server of a Redis Cluster has a key; see
// [redis.ClusterClient].
type Topology interface {
	MasterForKey(ctx context.Context, key string) (*redis.Client, error)
	// ReloadState looks the topology up again, in the background.
	ReloadState(ctx context.Context)
}

// Cluster keeps the buckets in a Redis Cluster. The buckets of a caller may be on
// different servers, and no script can take from all. Take asks one server after the
// other, and refunds the tokens that it has if a bucket is empty. Each bucket keeps its
// limit exactly. For a moment, the other buckets lack a token that nobody gets. Such a
// token is lost if there is no time left to refund it.
//
// Each server has its own breaker. While a server is away, only callers with a bucket
// there are decided without the cluster. Cluster asks the topology for addresses
// alone and sends the commands to the servers itself, so that no command is repeated.
// The first request after a bucket has moved fails; then the topology is looked up.
type Cluster struct {
	topology Topology
	log      *slog.Logger

	mu      sync.Mutex
	servers map[string]*clusterServer // by address
}

var _ guarded = (*Cluster)(nil)

// clusterServer is one primary, with a key that it has, to probe it with.
type clusterServer struct {
	*guardedStore

	client *redis.Client
	key    string
}

// NewCluster returns a store on the servers of topology, whose clients must not retry.
func NewCluster(topology Topology, log *slog.Logger) *Cluster {
	return &Cluster{topology: topology, log: log, servers: make(map[string]*clusterServer)}
}

// Take implements [Store] in one round trip for each bucket. It gives no places.
func (c *Cluster) Take(ctx context.Context, req Request) (Result, error) {
	servers := make([]*clusterServer, len(req.Buckets))
	for i, b := range req.Buckets {
		s, err := c.server(ctx, b.Key)
		if err != nil {
			return Result{}, err
		}
		if s.open() { // before a token is taken elsewhere
			return Result{}, breaker.ErrOpen
		}
		servers[i] = s
	}
	e := emptiest{enough: true}
	var paid []int
	var failed error
	for i, b := range req.Buckets {
		r, err := servers[i].Take(ctx, Request{Buckets: req.Buckets[i : i+1]})
		if err != nil {
			failed = err
			break
		}
		if r.Taken {
			paid = append(paid, i)
			r.Debt -= b.Limit.Interval
		}
		e.look(i, b.Limit, r.Debt)
	}
	if failed == nil && e.enough {
		limit := req.Buckets[e.bucket].Limit
		return Result{Taken: true, Bucket: e.bucket, Limit: limit, Debt: e.debt + limit.Interval}, nil
	}
	for _, i := range paid {
		// If this fails too, the caller has paid for nothing: that is the safe side.
		_ = servers[i].Refund(ctx, Result{}, req.Buckets[i:i+1])
	}
	if failed != nil {
		c.noticeMove(ctx, failed)
		return Result{}, failed
	}
	return Result{Bucket: e.bucket, Limit: req.Buckets[e.bucket].Limit, Debt: e.debt}, nil
}

// mayRefund says that tokens can come back: Take itself refunds those of a request with an
// empty bucket.
func (c *Cluster) mayRefund(Request) bool { return true }

// Refund implements [Store] in one round trip for each bucket.
func (c *Cluster) Refund(ctx context.Context, r Result, buckets []Bucket) error {
	var errs []error
	for i, b := range buckets {
		s, err := c.server(ctx, b.Key)
		if err == nil {
			err = s.Refund(ctx, r, buckets[i:i+1])
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// server returns the server that has key.
func (c *Cluster) server(ctx context.Context, key string) (*clusterServer, error) {
	client, err := c.topology.MasterForKey(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("find the cluster's server of a bucket: %w", err)
	}
	addr := client.Options().Addr
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.servers[addr]
	if s == nil || s.client != client { // the topology makes a new client when a server comes back
		s = &clusterServer{guardedStore: guard(newClusterServer(client), c.log.With("server", addr)), client: client, key: key}
		c.servers[addr] = s
	}
	return s, nil
}

// noticeMove looks the topology up if err says that the topology has changed.
func (c *Cluster) noticeMove(ctx context.Context, err error) {
	if _, moved := redis.IsMovedError(err); moved {
		c.topology.ReloadState(ctx)
	}
}

func (c *Cluster) open() bool {
	for _, s := range c.known() {
		if s.open() {
			return true
		}
	}
	return false
}

// probe probes each server that was asked before, all at the same time.
func (c *Cluster) probe(ctx context.Context) {
	var probes sync.WaitGroup
	for addr, s := range c.known() {
		probes.Go(func() {
			client, err := c.topology.MasterForKey(ctx, s.key)
			if err == nil && client.Options().Addr != addr { // its keys are another's now
				c.mu.Lock()
				if c.servers[addr] == s {
					delete(c.servers, addr)
				}
				c.mu.Unlock()
				return
			}
			// A key with another key in braces belongs to the same server (redis.io,
			// cluster specification, hash tags).
			s.probeKey(ctx, Key("probe", "{"+s.key+"}"))
			if s.open() {
				c.topology.ReloadState(ctx)
			}
		})
	}
	probes.Wait()
}

// known returns the servers that were asked so far.
func (c *Cluster) known() map[string]*clusterServer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.servers)
}
