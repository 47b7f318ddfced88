package e2e_test

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/certtest"
	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// ping is what SAQ does with a URL, as far as the connection goes.
const ping = `
import asyncio, sys, redis.asyncio as redis
async def main():
    client = redis.from_url(sys.argv[1])
    await client.ping()
    await client.aclose()
asyncio.run(main())
`

// TestOneURL: with one and the same URL the API's redis-py and the gate reach Redis both, or neither of them does.
func TestOneURL(t *testing.T) {
	t.Parallel()
	const (
		raw  = "p%ss^é:@;" // can stand in a URL as it is, as far as redis-py is concerned
		hard = "12/3#4?5@[6]%40"
	)
	ca, otherCA := certtest.NewCA(t), certtest.NewCA(t)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	client := ca.Pair(t, "api")
	caFile, otherFile := file("ca.crt", ca.Cert), file("other.crt", otherCA.Cert)
	pair := "&ssl_certfile=" + file("tls.crt", client.Cert) + "&ssl_keyfile=" + file("tls.key", client.Key)

	server, tcp := redistest.StartTCP(t)
	addUsers(t, server.Client(t), map[string]string{"raw": raw, "hard": hard})
	named := redistest.TLS{Pair: ca.Pair(t, "127.0.0.1"), CA: ca}
	_, byTLS := redistest.StartTLS(t, named)
	_, wrong := redistest.StartTLS(t, redistest.TLS{Pair: ca.Pair(t, "redis.internal"), CA: ca})
	_, mutual := redistest.StartTLS(t, named, "--tls-auth-clients", "yes")

	const fine, not = true, false
	for name, tt := range map[string]struct {
		url  string
		env  string
		want bool
	}{
		"plain":                   {"redis://" + tcp + "/1", "", fine},
		"parameters":              {"redis://" + tcp + "?db=1&health_check_interval=30&socket_timeout=5&max_connections=20&client_name=api&protocol=3", "", fine},
		"password as it is":       {"redis://raw:" + raw + "@" + tcp, "", fine},
		"password encoded":        {"redis://hard:" + url.QueryEscape(hard) + "@" + tcp, "", fine},
		"password not encoded":    {"redis://hard:" + hard + "@" + tcp, "", not},
		"password in a parameter": {"redis://" + tcp + "?username=hard&password=" + url.QueryEscape(url.QueryEscape(hard)), "", fine},
		"password by a socket":    {"unix://" + server.Socket + "?username=raw&password=" + url.QueryEscape(url.QueryEscape(raw)), "", fine},
		"wrong password":          {"redis://raw:x@" + tcp, "", not},
		"unknown parameter":       {"redis://" + tcp + "?ssl=true", "", not},
		"bad value":               {"redis://" + tcp + "?socket_timeout=soon", "", not},
		"TLS":                     {"rediss://" + byTLS, "", not},
		"TLS, SSL_CERT_FILE":      {"rediss://" + byTLS, caFile, fine},
		"TLS, another's":          {"rediss://" + byTLS, otherFile, not},
		"TLS, its own CA":         {"rediss://" + byTLS + "?ssl_ca_certs=" + caFile, "", fine},
		"TLS, both CAs":           {"rediss://" + byTLS + "?ssl_ca_certs=" + otherFile, caFile, fine},
		"TLS, none":               {"rediss://" + byTLS + "?ssl_cert_reqs=none", "", fine},
		"TLS, optional":           {"rediss://" + byTLS + "?ssl_cert_reqs=optional", "", not},
		"TLS, wrong name":         {"rediss://" + wrong + "?ssl_ca_certs=" + caFile, "", not},
		"TLS, any name":           {"rediss://" + wrong + "?ssl_check_hostname=False&ssl_ca_certs=" + caFile, "", fine},
		"mutual TLS":              {"rediss://" + mutual + "?ssl_ca_certs=" + caFile + pair, "", fine},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := []string{"QUEUE_URL=" + tt.url, "STARTUP_TIMEOUT=5s", "GRPC_ADDR=127.0.0.1:0", "TELEMETRY_ADDR=127.0.0.1:0"}
			if tt.env != "" {
				env = append(env, "SSL_CERT_FILE="+tt.env)
			}
			python := exec.CommandContext(t.Context(), e2e.Tool(t, "python"), "-c", ping, tt.url)
			python.Env = env
			said, err := python.CombinedOutput()
			if (err == nil) != tt.want {
				t.Errorf("redis-py: want it to work: %v; %v\n%s", tt.want, err, said)
			}
			gate := proctest.Start(t, proctest.Command{Name: "gate", Path: e2e.GateBinary(t), Env: env})
			polltest.Until(t, 30*time.Second, "the gate to serve or to end", func() error {
				if gate.Running() && !strings.Contains(gate.Log(), `"msg":"serving"`) {
					return fmt.Errorf("neither:\n%s", gate.Log())
				}
				return nil
			})
			if gate.Running() != tt.want {
				t.Errorf("gate: want it to work: %v\n%s", tt.want, gate.Log())
			}
		})
	}
}

// addUsers makes users that may do anything.
func addUsers(t *testing.T, c *redis.Client, passwords map[string]string) {
	t.Helper()
	for name, password := range passwords {
		if err := c.Do(t.Context(), "ACL", "SETUSER", name, "on", ">"+password, "~*", "&*", "+@all").Err(); err != nil {
			t.Fatal(err)
		}
	}
}
