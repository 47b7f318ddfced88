package main

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// TestParseRedis checks which kind of client a URL leads to, that none of them
// retries, and that no mistake quotes the password.
func TestParseRedis(t *testing.T) {
	for u, want := range map[string]string{
		"redis://:hunter2@redis/1":                                           "server",
		"rediss://u:hunter2@redis:6380":                                      "server",
		"unix:///run/redis.sock":                                             "server",
		"redis://:hunter2@s1:26379?master_name=m&addr=s2:26379&password=pw":  "sentinel",
		"redis://s1:26379?master_name=m":                                     "sentinel",
		"redis://u:hunter2@n1:6379?addr=n2:6379&addr=n3:6379":                "cluster",
		"rediss://n1:6379?addr=n1:6379":                                      "cluster",
		"":                                                                   "not a Redis URL",
		"http://:hunter2@redis":                                              "not a Redis URL",
		"redis:ann:hunter2@redis":                                            "not a Redis URL",
		"redis://:hunter2@redis:port":                                        "not a Redis URL",
		"redis://:hunter2@redis?adr=x:1":                                     "not a Redis URL",
		"redis://:hunter2@s1?master_name=":                                   "not a Redis URL",
		"redis://:hunter2@s1?master_name=m&replica_only=true":                "not a Redis URL",
		"redis://:hunter2@n1/2?addr=n2:6379":                                 "not a Redis URL",
		"redis://n1/0?addr=n2:6379":                                          "cluster",
		"redis://:hunter2@n1?addr=n2":                                        "not a Redis URL",
		"redis://:hunter2@s1?master_name=m;addr=s2:26379":                    "not a Redis URL",
		"redis://:hunter2@n1?addr=n2:6379&read_only=true":                    "not a Redis URL",
		"unix:///run/redis.sock?addr=n2:6379":                                "not a Redis URL",
		"redis://:hunter2@n1?addr=n2:6379&max_redirects=7&max_retries=5":     "cluster",
		"redis://:hunter2@s1?master_name=m&max_retries=5&dialer_retries=100": "sentinel",
	} {
		got := ""
		parsed, err := parseRedis(u)
		switch {
		case err != nil:
			got = err.Error()
		case parsed.server != nil:
			got = "server"
			if o := parsed.server; o.MaxRetries != -1 || !o.ContextTimeoutEnabled {
				t.Errorf("%s: retries, or waits longer than a request may", u)
			}
		case parsed.sentinel != nil:
			got = "sentinel"
			if o := parsed.sentinel; o.MaxRetries != -1 || o.DialerRetries != 1 || !o.ContextTimeoutEnabled {
				t.Errorf("%s: retries, or waits longer than a request may", u)
			}
		case parsed.cluster != nil:
			got = "cluster"
			if o := parsed.cluster; o.MaxRetries != -1 || o.MaxRedirects != -1 || !o.ContextTimeoutEnabled {
				t.Errorf("%s: retries, or waits longer than a request may", u)
			}
		}
		if !strings.HasPrefix(got, want) || strings.Contains(got, "hunter2") {
			t.Errorf("%s: got %q, want %q", u, got, want)
		}
	}
}

func TestQueueIsNoCluster(t *testing.T) {
	_, errs := loadConfig(map[string]string{"QUEUE_URL": "redis://n1:6379?addr=n2:6379"})
	if len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), "QUEUE_URL: a Redis Cluster can't hold") {
		t.Errorf("got %v", errs)
	}
	if _, errs := loadConfig(map[string]string{"RATE_LIMIT_REDIS_URL": "redis://n1:6379?addr=n2:6379"}); len(errs) != 0 {
		t.Errorf("got %v", errs)
	}
}

// TestTopologyTimeout: a cluster's server that hangs holds nothing up for long, and
// no command for less than REDIS_TIMEOUT.
func TestTopologyTimeout(t *testing.T) {
	for timeout, want := range map[string]time.Duration{"100ms": topologyTimeout, "2s": 2 * time.Second} {
		cfg, errs := loadConfig(map[string]string{"RATE_LIMIT_REDIS_URL": "redis://n1:6379?addr=n2:6379", "REDIS_TIMEOUT": timeout})
		if len(errs) != 0 {
			t.Fatal(errs)
		}
		g, err := newGate(cfg, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.close)
		if got := g.limiterRedis.(*redis.ClusterClient).Options().ReadTimeout; got != want {
			t.Errorf("REDIS_TIMEOUT=%s: %v, want %v", timeout, got, want)
		}
	}
}
