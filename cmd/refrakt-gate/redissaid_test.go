package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/telemetry"
)

// protectedMode is what Redis 7.0 says to whoever connects from another host while it has
// no password. Here all hosts are this one, so a listener of the test says it.
const protectedMode = "-DENIED Redis is running in protected mode because protected mode is enabled and no password is set for the default user. " +
	"In this mode connections are only accepted from the loopback interface. If you want to connect from external computers to Redis you may adopt " +
	"one of the following solutions: 1) Just disable protected mode sending the command 'CONFIG SET protected-mode no' from the loopback interface.\r\n"

// TestRedisRefuses: what Redis says to a gate that starts is in the log and in /readyz,
// in one bounded line without the password.
func TestRedisRefuses(t *testing.T) {
	t.Parallel()
	full, fullAddr := redistest.StartTCP(t)
	if err := full.Client(t).ConfigSet(t.Context(), "maxclients", "1").Err(); err != nil {
		t.Fatal(err)
	}
	locked := redistest.Start(t, "--requirepass", "right")
	// A server that does not know AUTH repeats the beginning of the password.
	long := "hunter2" + strings.Repeat("x", 200)
	deaf := redistest.Start(t, "--requirepass", "right", "--rename-command", "AUTH", "", "--rename-command", "HELLO", "")
	for name, tt := range map[string]struct {
		settings map[string]string
		want     string
	}{
		"protected mode": {map[string]string{"QUEUE_URL": "redis://" + listener(t, protectedMode)}, "Redis said: DENIED Redis is running in protected mode"},
		"too many":       {map[string]string{"QUEUE_URL": "redis://" + fullAddr}, "Redis said: ERR max number of clients reached"},
		"cluster": {
			map[string]string{"RATE_LIMIT_REDIS_URL": "redis://" + fullAddr + "?addr=" + fullAddr}, "Redis said: ERR max number of clients reached",
		},
		"no password":       {map[string]string{"QUEUE_URL": "unix://" + locked.Socket}, "NOAUTH Authentication required"},
		"wrong password":    {map[string]string{"QUEUE_URL": "unix://:hunter2@" + locked.Socket}, "WRONGPASS"},
		"repeats":           {map[string]string{"QUEUE_URL": "unix://ann:" + long + "@" + deaf.Socket}, "ERR unknown command 'auth'"},
		"another one's own": {map[string]string{"QUEUE_URL": "redis://:hunter2@" + listener(t, "-ERR no hunter2 here\r\n")}, "ERR no *** here"},
		"no Redis":          {map[string]string{"QUEUE_URL": "redis://" + listener(t, "220 mail.example ESMTP\r\n")}, "ping Redis: "},
		"nothing said":      {map[string]string{"QUEUE_URL": "redis://" + listener(t, "")}, "(at 127.0.0.1:"},
		"an endless line":   {map[string]string{"QUEUE_URL": "redis://" + listener(t, "-"+strings.Repeat("é", 1<<16)+"\r\n")}, "Redis said: ééé"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.settings["STARTUP_TIMEOUT"] = "1s"
			cfg, errs := loadConfig(tt.settings)
			if len(errs) != 0 {
				t.Fatal(errs)
			}
			var log bytes.Buffer
			g, err := newGate(cfg, prometheus.NewRegistry(), telemetry.NewLogger(cfg.Telemetry, &log))
			if err != nil {
				t.Fatal(err)
			}
			defer g.close()
			err = g.awaitRedis(t.Context())
			if err == nil {
				t.Fatal("Redis takes the gate")
			}
			texts := map[string]string{"error": err.Error(), "readyz": fmt.Sprint(g.ready.Reasons()), "log": log.String()}
			for where, text := range texts {
				if !strings.Contains(text, tt.want) || strings.Contains(text, "hunter2") {
					t.Errorf("%s: %q, want %q in it", where, text, tt.want)
				}
				if where != "log" && (strings.Contains(text, "\n") || len(text) > maxSaid+100) {
					t.Errorf("%s: not one bounded line: %q", where, text)
				}
			}
		})
	}
}

// listener says the same to everybody and hangs up.
func listener(t *testing.T, says string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, says)
			conn.Close()
		}
	}()
	return l.Addr().String()
}
