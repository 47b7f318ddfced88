package compose

import (
	"encoding/json"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestLockedDown: no service may do more than it needs to, and each comes back by itself.
func TestLockedDown(t *testing.T) {
	t.Parallel()
	for name, s := range load(t).Services {
		if !s.ReadOnly || s.Privileged || len(s.CapAdd) > 0 || !slices.Equal(s.CapDrop, []string{"ALL"}) {
			t.Errorf("%s: want a read-only root and no capabilities: read_only %v, privileged %v, cap_add %v, cap_drop %v",
				name, s.ReadOnly, s.Privileged, s.CapAdd, s.CapDrop)
		}
		if !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s may gain privileges: security_opt %v", name, s.SecurityOpt)
		}
		if l := s.Logging; l == nil || l.Driver != "json-file" || l.Options["max-size"] == "" || l.Options["max-file"] == "" {
			t.Errorf("%s: the log is not bounded: %+v", name, l)
		}
		if s.Restart != "unless-stopped" {
			t.Errorf("%s: restart is %q", name, s.Restart)
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is published to all", name, p.Published)
			}
		}
		if user := runsAs(t, s); user == "" || user == "root" || strings.HasPrefix(user, "0") {
			t.Errorf("%s runs as %q, which needs capabilities to become another user", name, user)
		}
	}
}

// runsAs is the user of a service: its own, or the last one of its Dockerfile.
func runsAs(t *testing.T, s types.ServiceConfig) string {
	t.Helper()
	if s.User != "" || s.Build == nil {
		return s.User
	}
	user := ""
	for _, in := range dockerfile(t, s).instructions {
		if in.name == "USER" {
			user = in.rest
		}
	}
	return user
}

// TestHealthChecks: each service but the network's owner, which can't fail, says whether it serves, so that
// `docker compose up --wait` waits for that. It fails only if the gate is found unhealthy before STARTUP_TIMEOUT ends
// and restarts it.
func TestHealthChecks(t *testing.T) {
	t.Parallel()
	services := load(t).Services
	for name, s := range services {
		h := s.HealthCheck
		switch {
		case name == "pod":
			if h != nil {
				t.Error("pod does nothing, but has a health check")
			}
			continue
		case h == nil || h.Disable || h.Interval == nil || h.Timeout == nil || h.Retries == nil:
			t.Errorf("%s has no complete health check: %+v", name, h)
			continue
		}
		if name != "gate" {
			continue
		}
		// It answers at once that it is not ready.
		unhealthy := time.Duration(*h.StartPeriod) + time.Duration(*h.Retries)*time.Duration(*h.Interval)
		if timeout := startupTimeout(t, gateSettings(t, services)); unhealthy >= timeout {
			t.Errorf("the gate is unhealthy after %v only, and begins anew after %v", unhealthy, timeout)
		}
	}
}

func startupTimeout(t *testing.T, settings map[string]string) time.Duration {
	t.Helper()
	for line := range strings.Lines(e2e.Config(t, settings)) {
		if value, ok := strings.CutPrefix(line, "STARTUP_TIMEOUT="); ok {
			d, err := time.ParseDuration(strings.TrimSpace(value))
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
	}
	t.Fatal("the gate has no STARTUP_TIMEOUT")
	return 0
}

// distroless is the PATH of the gate's image.
const distroless = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// TestCommandInPath: `docker compose exec gate refrakt-gate …` finds the program, and it is the one that runs.
func TestCommandInPath(t *testing.T) {
	t.Parallel()
	gate := load(t).Services["gate"]
	var copied string
	var entrypoint []string
	for _, in := range dockerfile(t, gate).instructions {
		switch in.name {
		case "COPY":
			args := strings.Fields(in.rest)
			copied = args[len(args)-1]
		case "ENTRYPOINT":
			if err := json.Unmarshal([]byte(in.rest), &entrypoint); err != nil {
				t.Fatal(err)
			}
		}
	}
	if path.Base(copied) != "refrakt-gate" || !slices.Contains(strings.Split(distroless, ":"), path.Dir(copied)) {
		t.Errorf("the program is %s, which is not found by its name", copied)
	}
	if !slices.Equal(entrypoint, []string{copied}) {
		t.Errorf("the image runs %v, not %s", entrypoint, copied)
	}
	if want := []string{"CMD", "refrakt-gate", "healthcheck"}; !slices.Equal(gate.HealthCheck.Test, want) {
		t.Errorf("the gate's health check is %v, want %v", gate.HealthCheck.Test, want)
	}
}
