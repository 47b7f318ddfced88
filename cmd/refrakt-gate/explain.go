package main

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// explain prints the effective settings in the form of an environment, and says in words
// what they mean.
func explain(w io.Writer, cfg Config) error {
	for _, s := range effective(cfg) {
		if cfg.PolicyFile != "" && slices.Contains(replaced, s.name) {
			continue // the file stands for it
		}
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
		field := v.Type().Field(i)
		name, ok := field.Tag.Lookup("env")
		switch {
		case !field.IsExported():
			continue
		case !ok:
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
	lines = append(lines, cfg.policies.Words()...)
	switch {
	case !cfg.Authz.LimitEnabled:
		add("RATE_LIMIT_ENABLED is off: no bucket is asked")
	case cfg.limiterURL() == "":
		add("the buckets are in the memory of this process: replicas do not share them, and a restart fills them")
	default:
		add("the buckets are in Redis, shared by all replicas; while it is away: %s", cfg.Authz.LimitFailureMode)
	}
	if cfg.QueueURL == "" {
		add("no queue is watched: QUEUE_URL is not set")
	} else {
		add("while the state of a queue is unknown: %s", cfg.Authz.QueueFailureMode)
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
	lines = append(lines, cfg.Traces.Words())
	return lines
}
