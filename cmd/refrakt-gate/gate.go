package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/refrakt-hub/refrakt-gate/authz"
	"github.com/refrakt-hub/refrakt-gate/backpressure/saq"
	"github.com/refrakt-hub/refrakt-gate/certs"
	"github.com/refrakt-hub/refrakt-gate/internal/redistrace"
	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/quota"
	"github.com/refrakt-hub/refrakt-gate/telemetry"
	"github.com/refrakt-hub/refrakt-gate/telemetry/page"
)

// gate has the parts of the process.
type gate struct {
	cfg       Config
	log       *slog.Logger
	ready     *telemetry.Readiness
	telemetry *telemetry.Server
	page      *page.Page
	health    *health.Server
	server    *grpc.Server
	checks    *authz.Server

	passwords    []string              // of Redis, never to be shown
	hangups      chan os.Signal        // SIGHUP: look at POLICY_FILE now
	telemetryTLS *certs.Files          // nil: plain text
	queueRedis   *redis.Client         // nil: no queue
	limiterRedis redis.UniversalClient // nil: buckets in memory
	queues       *queues
	reloads      *reloader         // nil: no POLICY_FILE
	failover     *quota.Failover   // nil: buckets in memory
	bucketBytes  int64             // of buckets in memory; 0: there are none
	traces       *telemetry.Traces // nil: no request is traced
	inForce      atomic.Pointer[page.InForce]

	switched       atomic.Pointer[policy.Switches] // in force, unless there is a POLICY_FILE
	switchesBroken atomic.Bool                     // SWITCHES_FILE has a mistake
}

const starting = "starting"

// newGate builds the parts. It starts nothing, and reads nothing but certificates.
func newGate(cfg Config, reg *prometheus.Registry, log *slog.Logger) (*gate, error) {
	g := &gate{cfg: cfg, log: log, ready: new(telemetry.Readiness), health: health.NewServer(), hangups: make(chan os.Signal, 1)}
	g.ready.Block(starting, "waiting for Redis and the first sample of the queue")
	g.switched.Store(&cfg.Policy.Switches)
	g.page = g.newPage(reg)
	g.telemetry = telemetry.NewServer(cfg.Telemetry, reg, g.ready, g.degradedLines, g.page, log)
	g.setServing(healthpb.HealthCheckResponse_NOT_SERVING)

	if cfg.QueueURL != "" {
		u, err := parseRedis(cfg.QueueURL)
		if err != nil {
			return nil, fmt.Errorf("parse QUEUE_URL: %w", err)
		}
		g.passwords = append(g.passwords, u.passwords()...)
		g.queueRedis = u.client()
	}
	// Series with one name have the same labels, whatever they are about.
	var limiterReg prometheus.Registerer = reg
	if cfg.PolicyFile != "" {
		limiterReg = prometheus.WrapRegistererWith(prometheus.Labels{queueLabel: ""}, reg)
	}
	limiter, err := g.newLimiter(limiterReg)
	if err != nil {
		return nil, err
	}
	var traces authz.Traces
	if cfg.Traces.Enabled() {
		if g.traces, err = telemetry.NewTraces(cfg.Traces, version, reg, log); err != nil {
			return nil, err
		}
		traces = authz.Traces{Tracer: g.traces.Tracer(), Parents: cfg.Traces.Parents()}
		g.traceRedis(redistrace.NewHook(traces.Tracer))
		log.Info("requests are traced", "traces", cfg.Traces.Words())
	}
	if cfg.TLS.TelemetryCertFile != "" {
		if g.telemetryTLS, err = certs.Load(cfg.TLS.telemetry(), reg, log); err != nil {
			return nil, err
		}
	}
	if g.server, err = newGRPC(cfg.TLS.grpc(), cfg.GRPCCodec, cfg.Authz.MaxChecks, reg, log); err != nil {
		return nil, err
	}
	g.queues = &queues{cfg: cfg, rdb: g.queueRedis, reg: reg, log: log, together: g.limiterRedis == g.queueRedis}
	in, _ := g.queues.apply(cfg.policies.Queues)
	g.checks = authz.New(cfg.Authz, authz.Rules{Policies: policy.Compile(cfg.policies), Queues: in}, limiter, traces, reg, log)
	g.tellPage(cfg.policies)
	if cfg.PolicyFile != "" {
		g.reloads = newReloader(cfg, g.put, reg, log)
	}
	cfg.GRPCCodec.register(g.server, g.checks)
	healthpb.RegisterHealthServer(g.server, g.health)
	return g, nil
}

func (g *gate) newLimiter(reg prometheus.Registerer) (authz.Limiter, error) {
	if g.cfg.limiterURL() == "" {
		g.bucketBytes = quota.MemoryBytes
		return quota.NewMemory(), nil
	}
	store, err := g.limiterStore()
	if err != nil {
		return nil, err
	}
	var fallback quota.Store
	if g.cfg.Authz.LimitFailureMode == authz.FailLocal {
		g.bucketBytes = quota.MemoryBytes
		fallback = quota.NewMemory()
	}
	g.failover = quota.NewFailover(store, fallback, g.cfg.Quota.FallbackShare, reg, g.log)
	return g.failover, nil
}

// limiterStore returns the shared store, in the Redis of the queue or in another one.
func (g *gate) limiterStore() (quota.Store, error) {
	if url := g.cfg.limiterURL(); url != g.cfg.QueueURL {
		u, err := parseRedis(url)
		if err != nil {
			return nil, fmt.Errorf("parse RATE_LIMIT_REDIS_URL: %w", err)
		}
		g.passwords = append(g.passwords, u.passwords()...)
		if u.cluster != nil {
			u.cluster.ReadTimeout = max(topologyTimeout, g.cfg.Authz.RedisTimeout)
			client := redis.NewClusterClient(u.cluster)
			g.limiterRedis = client
			return quota.NewCluster(client, g.log), nil
		}
		g.limiterRedis = u.client()
		return quota.NewRedis(g.limiterRedis, ""), nil
	}
	g.limiterRedis = g.queueRedis
	return quota.NewRedis(g.limiterRedis, saq.PlacesLua), nil
}

// traceRedis has the clients of Redis make spans.
func (g *gate) traceRedis(hook redis.Hook) {
	if g.queueRedis != nil {
		g.queueRedis.AddHook(hook)
	}
	switch client := g.limiterRedis.(type) {
	case nil:
	case *redis.ClusterClient: // the gate asks its servers, not the client itself
		client.OnNewNode(func(server *redis.Client) { server.AddHook(hook) })
	default:
		if client != redis.UniversalClient(g.queueRedis) {
			client.AddHook(hook)
		}
	}
}

// switchTo puts other switches in force.
func (g *gate) switchTo(s policy.Switches) {
	env := g.cfg.Policy
	env.Switches = s
	g.switched.Store(&s)
	g.put(env.File(g.cfg.QueueURL != ""))
}

func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	)
	promauto.With(reg).NewGauge(prometheus.GaugeOpts{
		Name:        "refrakt_gate_build_info",
		Help:        "1; the label says which version this is.",
		ConstLabels: prometheus.Labels{"version": version},
	}).Set(1)
	return reg
}

// degraded lists what does not work as it should, although the gate is ready.
func (g *gate) degraded() []page.Trouble {
	var all []page.Trouble
	add := func(key, text string) { all = append(all, page.Trouble{Key: key, Text: key + ": " + text}) }
	if g.failover != nil && g.failover.Degraded() {
		add("limiter", "Redis is not asked, RATE_LIMIT_FAILURE_MODE="+string(g.cfg.Authz.LimitFailureMode)+" decides")
	}
	all = append(all, g.queues.problems()...)
	if g.reloads != nil && g.reloads.broken.Load() != nil {
		add("policies", "POLICY_FILE can't be used; what was in force remains in force (the log and refrakt-gate config say why)")
	}
	if g.switchesBroken.Load() {
		add("switches", "SWITCHES_FILE can't be used; what was in force remains in force (the log says why)")
	}
	if g.traces != nil && g.traces.Lost() {
		add("traces", "the collector does not take them")
	}
	if g.checks.GuardsNothing() {
		add("routes", "none of the requests that Envoy asks about is guarded, see docs/envoy-settings.md")
	}
	return all
}

// degradedLines is degraded in words, as /readyz has it.
func (g *gate) degradedLines() (lines []string) {
	for _, trouble := range g.degraded() {
		lines = append(lines, trouble.String())
	}
	return lines
}

func (g *gate) close() {
	g.server.Stop() // its workers wait for Checks since newGate
	g.closeRedis()
}

func (g *gate) closeRedis() {
	var clients []redis.UniversalClient
	if g.queueRedis != nil {
		clients = append(clients, g.queueRedis)
	}
	if g.limiterRedis != nil {
		clients = append(clients, g.limiterRedis)
	}
	for _, c := range clients {
		if err := c.Close(); err != nil && !errors.Is(err, redis.ErrClosed) { // both may be the same
			g.log.Warn("close Redis", "error", err)
		}
	}
}
