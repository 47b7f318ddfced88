package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/refrakt-hub/refrakt-gate/telemetry"
	"github.com/refrakt-hub/refrakt-gate/telemetry/page"
)

// serve runs the gate until ctx ends, and stops its parts in order. The telemetry port
// starts first and stops last, so that it can tell about the other parts. cfg was read from
// environ, which is read again together with SWITCHES_FILE.
func serve(ctx context.Context, cfg Config, environ map[string]string, logs io.Writer) (err error) {
	log := telemetry.NewLogger(cfg.Telemetry, logs)
	defer func() {
		if err != nil {
			log.Error("stopped", "error", err)
			err = exit{code: exitFailed} // the log has the error
		}
	}()
	redis.SetLogger(redisLog{log})

	g, err := newGate(cfg, newRegistry(), log)
	if err != nil {
		return err
	}
	if g.reloads != nil {
		tell(cfg.policies, "POLICY_FILE is in force", log)
		warn(cfg.policies, log)
		signal.Notify(g.hangups, syscall.SIGHUP)
		defer signal.Stop(g.hangups)
	}
	defer g.close()
	limitMemory(g.bucketBytes, log)

	l, err := listen(cfg.Telemetry.Addr)
	if err != nil {
		return fmt.Errorf("listen on TELEMETRY_ADDR: %w", err)
	}
	if g.telemetryTLS != nil {
		l = tls.NewListener(l, g.telemetryTLS.Server())
	}
	log.Info("telemetry listening", "addr", address(l))
	// This context ends once the other parts have stopped, or if the telemetry port fails.
	telemetryCtx, stopTelemetry := context.WithCancel(context.WithoutCancel(ctx))
	defer stopTelemetry()
	ctx, cancel := context.WithCancel(ctx)
	var telemetryDone errgroup.Group
	telemetryDone.Go(func() error {
		defer cancel()
		return g.telemetry.Run(telemetryCtx, l)
	})
	if cfg.Telemetry.MetricsEnabled {
		telemetryDone.Go(func() error { return g.page.Run(telemetryCtx) })
	}
	err = g.serveEnvoy(ctx, environ)
	if g.traces != nil {
		g.traces.Stop(ctx)
	}
	stopTelemetry()
	if err := errors.Join(err, telemetryDone.Wait()); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// serveEnvoy waits for Redis, answers Envoy until ctx ends, and drains.
func (g *gate) serveEnvoy(ctx context.Context, environ map[string]string) error {
	if g.queueRedis == nil {
		g.log.Warn("QUEUE_URL is not set: no queue is watched, and buckets that are not in RATE_LIMIT_REDIS_URL are in the memory of this process")
	}
	if err := g.awaitRedis(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // the process was told to stop while it was starting
		}
		return err
	}
	l, err := listen(g.cfg.GRPCAddr)
	if err != nil {
		return fmt.Errorf("listen on GRPC_ADDR: %w", err)
	}

	// The background work goes on during the drain, because requests still need it.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	run, failed := errgroup.WithContext(background)
	run.Go(func() error {
		if err := g.server.Serve(l); err != nil {
			return fmt.Errorf("serve gRPC: %w", err)
		}
		return nil
	})
	if g.failover != nil {
		run.Go(func() error { return g.failover.Run(failed) })
	}
	if g.cfg.SwitchesFile != "" {
		run.Go(func() error {
			watchSwitches(failed, environ, g.cfg.Policy.Switches, g.switchTo, &g.switchesBroken, g.log)
			return nil
		})
	}
	// Counting ends when the drain begins. So another replica goes on at once, and what
	// was counted here can still be scraped.
	counting, stopCounting := context.WithCancel(failed)
	defer stopCounting()
	g.queues.serve(failed, counting, run.Go)
	if g.reloads != nil {
		run.Go(func() error {
			g.reloads.watch(failed, g.hangups)
			return nil
		})
	}
	g.setServing(healthpb.HealthCheckResponse_SERVING)
	g.ready.Clear(starting)
	g.log.Info("serving", "grpc", address(l), "version", version)

	select {
	case <-ctx.Done():
		stopCounting()
		g.drain(ctx)
	case <-failed.Done():
		g.server.Stop()
	}
	stop()
	return run.Wait()
}

// awaitRedis waits until Redis answers and the queue has been sampled.
func (g *gate) awaitRedis(ctx context.Context) error {
	ask := func() (struct{}, error) {
		asking, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if g.limiterRedis != nil {
			if err := g.limiterRedis.Ping(asking).Err(); err != nil {
				return struct{}{}, g.explain(ctx, g.limiterRedis, fmt.Errorf("ping Redis: %w (at %s)", err, addressOf(g.limiterRedis)))
			}
		}
		if err := g.queues.sample(asking); err != nil {
			return struct{}{}, g.explain(ctx, g.queueRedis, err)
		}
		return struct{}{}, nil
	}
	pace := backoff.NewExponentialBackOff()
	pace.InitialInterval, pace.MaxInterval = 100*time.Millisecond, 2*time.Second
	_, err := backoff.Retry(ctx, ask, backoff.WithBackOff(pace), backoff.WithMaxElapsedTime(g.cfg.StartupTimeout),
		backoff.WithNotify(func(err error, next time.Duration) {
			g.ready.Block(starting, err.Error())
			g.log.Warn("Redis does not answer yet", "error", err, "next_try", next.Round(time.Millisecond))
		}))
	if err != nil {
		return fmt.Errorf("wait for Redis, STARTUP_TIMEOUT=%v: %w", g.cfg.StartupTimeout, err)
	}
	return nil
}

// drain fails the health checks for SHUTDOWN_DRAIN, so that Envoy sees it. Then it waits
// for the requests under way, for SHUTDOWN_TIMEOUT at most.
func (g *gate) drain(ctx context.Context) {
	g.log.Info("draining", "cause", context.Cause(ctx), "for", g.cfg.ShutdownDrain)
	g.ready.Block(page.Stopping, "the process was told to stop")
	g.health.Shutdown()
	time.Sleep(g.cfg.ShutdownDrain)
	cut := time.AfterFunc(g.cfg.ShutdownTimeout, g.server.Stop)
	defer cut.Stop()
	g.server.GracefulStop()
}

func (g *gate) setServing(s healthpb.HealthCheckResponse_ServingStatus) {
	g.health.SetServingStatus("", s)
	g.health.SetServingStatus(authv3.Authorization_ServiceDesc.ServiceName, s)
}
