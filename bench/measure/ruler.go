package measure

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/load"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

// Ruler is Redis that is asked for the shortest script, EVALSHA of `return 0`, by as many connections as are in flight.
func Ruler(ctx context.Context, r *servers.Redis) (Contender, error) {
	sha, err := r.ScriptLoad(ctx, "return 0").Result()
	if err != nil {
		return Contender{}, fmt.Errorf("load `return 0`: %w", err)
	}
	ask := fmt.Appendf(nil, "*3\r\n$7\r\nEVALSHA\r\n$%d\r\n%s\r\n$1\r\n0\r\n", len(sha), sha)
	return Contender{
		Name: "Redis: EVALSHA of `return 0`", Servers: []*servers.Server{{Process: r.Process, Addr: r.Addr, Redis: r}},
		Warm: 200 * time.Millisecond, Ruler: true,
		Drive: func(ctx context.Context, l load.Load) (load.Result, error) { return askRedis(ctx, l, ask) },
	}, nil
}

// askRedis is a closed loop on Redis with a command that is answered in one line. It counts answers and takes no times.
func askRedis(ctx context.Context, l load.Load, ask []byte) (result load.Result, err error) {
	var (
		wg     sync.WaitGroup
		stop   atomic.Bool
		seen   atomic.Int64
		d      net.Dialer
		mu     sync.Mutex
		failed []error
	)
	deadline := time.Now().Add(l.Warm + l.Measure + 10*time.Second)
	for range l.InFlight {
		c, err := d.DialContext(ctx, "tcp", l.Addrs[0])
		if err != nil {
			stop.Store(true)
			failed = append(failed, err)
			break
		}
		wg.Go(func() {
			defer c.Close()
			if err := askAgain(c, ask, deadline, &stop, &seen); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, err)
			}
		})
	}
	time.Sleep(l.Warm)
	l.Begin()
	begun, before := time.Now(), seen.Load()
	time.Sleep(l.Measure)
	result.Took, result.Counts[load.Allowed] = time.Since(begun), seen.Load()-before
	l.End()
	stop.Store(true)
	wg.Wait()
	return result, errors.Join(append(failed, ctx.Err())...)
}

func askAgain(c net.Conn, ask []byte, deadline time.Time, stop *atomic.Bool, seen *atomic.Int64) error {
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	in := bufio.NewReader(c)
	for !stop.Load() {
		if _, err := c.Write(ask); err != nil {
			return err
		}
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if line[0] != ':' {
			return fmt.Errorf("answer of Redis: %q", line)
		}
		seen.Add(1)
	}
	return nil
}
