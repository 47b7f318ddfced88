package main

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/refrakt-hub/refrakt-gate/authz"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// explain prints the effective settings in the form of an environment, and says in words
// what they mean.
func explain(w io.Writer, cfg Config) error {
	for _, s := range effective(cfg) {
		if _, err := fmt.Fprintf(w, "%s=%s\n", s.name, s.value); err != nil {
			return fmt.Errorf("print settings: %w", err)
		}
	}
	for _, line := range meaning(cfg) {
		if _, err := fmt.Fprintf(w, "# %s\n", line); err != nil {
			return fmt.Errorf("print settings: %w", err)
		}
	}
	return nil
}

type setting struct{ name, value string }

// effective lists the settings in cfg. Secrets are masked.
func effective(cfg any) []setting {
	var out []setting
	v := reflect.ValueOf(cfg)
	for i := range v.NumField() {
		name, ok := v.Type().Field(i).Tag.Lookup("env")
		if !ok {
			out = append(out, effective(v.Field(i).Interface())...)
			continue
		}
		value := fmt.Sprint(v.Field(i).Interface())
		if list, ok := reflect.TypeAssert[[]string](v.Field(i)); ok {
			value = strings.Join(list, ",")
		}
		if mask := secrets[name]; mask != nil && value != "" {
			value = mask(value)
		}
		out = append(out, setting{name, value})
	}
	return out
}

// meaning says in words what the settings mean.
func meaning(cfg Config) []string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if cfg.Authz.LimitEnabled {
		for _, p := range []struct {
			policy authz.Policy
			tiers  quota.Tiers
		}{{authz.PolicyRun, cfg.Quota.Run()}, {authz.PolicyAssistant, cfg.Quota.Assistant()}} {
			add("%s: each client IP, and each user, has %s; premium %s", p.policy, inWords(p.tiers.Plain), inWords(p.tiers.Premium))
		}
		if cfg.limiterURL() == "" {
			add("the buckets are in the memory of this process: replicas do not share them, and a restart fills them")
		} else {
			add("the buckets are in Redis, shared by all replicas; while it is away: %s", cfg.Authz.LimitFailureMode)
		}
	} else {
		add("rate limits are off")
	}
	if q := cfg.Queue; cfg.QueueURL == "" {
		add("no queue is watched: QUEUE_URL is not set")
	} else {
		if q.MaxPending > 0 {
			add("requests get 503 while %d or more jobs of queue %q wait", q.MaxPending, cfg.SAQ.QueueName)
		}
		if q.MaxAge > 0 {
			add("requests get 503 while the oldest job waiting in queue %q has waited %v or longer", cfg.SAQ.QueueName, q.MaxAge)
		}
		if q.MaxPending == 0 && q.MaxAge == 0 {
			add("the queue is watched for the metrics only")
		} else {
			add("while the state of the queue is unknown: %s", cfg.Authz.QueueFailureMode)
		}
	}
	if c := cfg.TLS; c.GRPCCertFile != "" {
		who := "clients need no certificate"
		if c.GRPCClientCAFile != "" {
			who = "clients need a certificate that is signed by a CA in " + c.GRPCClientCAFile
		}
		if len(c.GRPCClientNames) > 0 {
			who += " and is for " + strings.Join(c.GRPCClientNames, " or ")
		}
		add("GRPC_ADDR speaks TLS %s or newer; %s", c.MinVersion, who)
	}
	if c := cfg.TLS; c.TelemetryCertFile != "" {
		add("TELEMETRY_ADDR speaks https, TLS %s or newer", c.MinVersion)
	}
	for _, shadow := range []struct {
		check string
		on    authz.Shadow
	}{{"rate limits", cfg.Authz.LimitShadow}, {"queue checks", cfg.Authz.QueueShadow}} {
		if shadow.on != (authz.Shadow{}) {
			add("SHADOW: %s are recorded but not enforced (for: %s)", shadow.check, shadow.on)
		}
	}
	return lines
}

func inWords(l quota.Limit) string {
	return fmt.Sprintf("%d requests at once, then one every %v", l.Capacity, l.Interval.Round(time.Millisecond))
}
