package main

import (
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// TestParseRedis checks which kind of client a URL leads to, that none of them
// retries, and that no mistake quotes the password.
func TestParseRedis(t *testing.T) {
	const noURL = "not a Redis URL"
	for u, want := range map[string]string{
		"redis://:hunter2@redis/1":                                           "server",
		"rediss://u:hunter2@redis:6380":                                      "server",
		"unix:///run/redis.sock":                                             "server",
		" redis://:hunter2@redis/1\n":                                        "server",
		"redis://:hunter2@s1:26379?master_name=m&addr=s2:26379&password=pw":  "sentinel",
		"redis://s1:26379?master_name=m":                                     "sentinel",
		"redis://u:hunter2@n1:6379?addr=n2:6379&addr=n3:6379":                "cluster",
		"rediss://n1:6379?addr=n1:6379":                                      "cluster",
		"redis://n1/0?addr=n2:6379":                                          "cluster",
		"redis://n1?addr=n2:6379&db=0":                                       "cluster",
		"redis://:hunter2@n1?addr=n2:6379&max_redirects=7&max_retries=5":     "cluster",
		"redis://:hunter2@s1?master_name=m&max_retries=5&dialer_retries=100": "sentinel",
		"redis://h?ssl_cert_reqs=none":                                       "server",
		"redis://h?ssl_cert_reqs=none&ssl_check_hostname=False":              "server",
		"":                                                                        noURL,
		"redis:ann:hunter2@redis":                                                 noURL,
		"http://:hunter2@redis":                                                   noURL,
		"redis://:hunter2@redis:port":                                             noURL,
		"redis://h?skip_verify=false":                                             "the parameter skip_verify is for TLS",
		"redis://h?ssl_cert_reqs=required":                                        "the parameter ssl_cert_reqs is for TLS",
		"redis://h?ssl_ca_certs=/hunter2":                                         "the parameter ssl_ca_certs is for TLS",
		"redis://:hunter2@h/1/2":                                                  "the path of the URL is not",
		"redis://:hunter2@h/-1":                                                   "the path of the URL is not",
		"redis://:hunter2@h/99999999999999999999":                                 noURL,
		"redis://:hunter2@h?db=-1":                                                "the parameter db has a value",
		"redis://:hunter2@h?db=hunter2":                                           "the parameter db has a value",
		"redis://:hunter2@redis?adr=x:1":                                          "the gate knows no parameter adr",
		"redis://:hunter2@redis?ssl_ciphers=x":                                    "the gate knows no parameter ssl_ciphers",
		"redis://h?hunter2%0a=x":                                                  "the gate knows no parameter with a name that is none",
		"redis://:hunter2@s1?master_name=":                                        "the parameter master_name is empty",
		"redis://:hunter2@s1?master_name=m;addr=s2:26379":                         "the parameters of the URL can't be read: write ;",
		"redis://:hunter2@s1?master_name=m&replica_only=true":                     "the gate can't work with the parameter replica_only",
		"redis://:hunter2@n1?addr=n2:6379&read_only=true":                         "the gate can't work with the parameter read_only",
		"redis://:hunter2@n1/2?addr=n2:6379":                                      "a Redis Cluster has no database but 0",
		"redis://:hunter2@n1?addr=n2:6379&db=1":                                   "a Redis Cluster has no database but 0",
		"redis://:hunter2@n1?addr=n2":                                             "the parameter addr has a value",
		"unix:///run?addr=n2:6379":                                                "a Redis Cluster has no database but 0",
		"unix://?addr=n2:6379":                                                    noURL,
		"redis://h?socket_timeout=hunter2":                                        "the parameter socket_timeout has a value",
		"redis://h?socket_timeout=5&read_timeout=3s":                              "the parameters socket_timeout and read_timeout say the same",
		"redis://h?pool_size=hunter2":                                             "the parameter pool_size has a value",
		"redis://h?protocol=4":                                                    "the parameter protocol has a value",
		"redis://h?max_connections=-1":                                            "the parameter max_connections has a value",
		"redis://h?db=1&db=2":                                                     "the parameter db is there more than once",
		"rediss://h?skip_verify=true&ssl_cert_reqs=required":                      "the parameters skip_verify and ssl_cert_reqs say the same",
		"rediss://h?ssl_cert_reqs=CERT_NONE":                                      "the parameter ssl_cert_reqs has a value",
		"rediss://h?ssl_check_hostname=perhaps":                                   "the parameter ssl_check_hostname has a value",
		"rediss://h?skip_verify=perhaps":                                          "the parameter skip_verify has a value",
		"rediss://h?ssl_ca_certs=/dev/null/hunter2":                               "read the file of the parameter ssl_ca_certs: not a directory",
		"rediss://h?ssl_ca_certs=/dev/null":                                       "the file of the parameter ssl_ca_certs holds no certificate",
		"rediss://h?ssl_ca_data=hunter2":                                          "the parameter ssl_ca_data holds no certificate",
		"rediss://h?ssl_keyfile=/hunter2":                                         "the parameter ssl_keyfile needs ssl_certfile",
		"rediss://h?ssl_certfile=/dev/null/hunter2&ssl_keyfile=/dev/null/hunter2": "read the file of the parameter ssl_certfile: not a directory",
		"rediss://h?ssl_password=hunter2":                                         "the gate knows no parameter ssl_password",
		// Where a character ends the host, redis-py reads another server, or none.
		"redis://:12#hunter2@redis":      "the URL holds a #",
		"redis://:hunter2#@redis":        "the URL holds a #",
		"redis://redis#hunter2":          "the URL holds a #",
		"redis://:12/hunter2@redis":      "the URL holds an @ behind its host",
		"redis://:hunter2/x@redis":       "the URL holds an @ behind its host",
		"redis://:12?hunter2@redis":      "the URL holds an @ behind its host",
		"redis://:12?hunter2=1&db=@r":    "the URL holds an @ behind its host",
		"unix://u:hunter2/x@/redis.sock": "the URL holds an @ behind its host",
	} {
		got := ""
		parsed, err := parseRedis(u)
		switch {
		case err != nil:
			got = err.Error()
		case parsed.server != nil:
			got = "server"
			if o := parsed.server; o.MaxRetries != -1 || o.DialerRetries != 1 || !o.ContextTimeoutEnabled || o.ClientName != clientName || !o.DisableIdentity {
				t.Errorf("%s: retries, or waits longer than a request may, or has another name", u)
			}
		case parsed.sentinel != nil:
			got = "sentinel"
			if o := parsed.sentinel; o.MaxRetries != -1 || o.DialerRetries != 1 || !o.ContextTimeoutEnabled || o.ClientName != clientName || !o.DisableIdentity {
				t.Errorf("%s: retries, or waits longer than a request may, or has another name", u)
			}
		case parsed.cluster != nil:
			got = "cluster"
			if o := parsed.cluster; o.MaxRetries != -1 || o.MaxRedirects != -1 || o.DialerRetries != 1 || !o.ContextTimeoutEnabled || o.ClientName != clientName || !o.DisableIdentity {
				t.Errorf("%s: retries, or waits longer than a request may, or has another name", u)
			}
		}
		if !strings.HasPrefix(got, want) || strings.Contains(got, "hunter2") {
			t.Errorf("%s: got %q, want %q", u, got, want)
		}
	}
}

// TestParameters: what the parameters come to, in each of the three forms.
func TestParameters(t *testing.T) {
	for _, form := range []string{"redis://h:1?", "redis://h:1?master_name=m&", "redis://h:1?addr=h2:2&"} {
		for query, want := range map[string]options{
			"":                          {dial: time.Second},
			"socket_timeout=0.25":       {dial: time.Second, read: 250 * time.Millisecond, write: 250 * time.Millisecond},
			"socket_timeout=":           {dial: time.Second},
			"socket_timeout=0":          {dial: time.Second},
			"read_timeout=2":            {dial: time.Second, read: 2 * time.Second},
			"socket_connect_timeout=.2": {dial: 200 * time.Millisecond},
			"socket_connect_timeout=20": {dial: time.Second},
			"dial_timeout=300ms":        {dial: 300 * time.Millisecond},
			"timeout=1.5":               {dial: time.Second, wait: 1500 * time.Millisecond},
			"health_check_interval=30":  {dial: time.Second, idle: 30 * time.Second},
			"health_check_interval=0":   {dial: time.Second},
			"max_connections=20":        {dial: time.Second, pool: 20, pipeline: -1},
			"max_connections=0":         {dial: time.Second},
			"pool_size=7":               {dial: time.Second, pool: 7},
			"protocol=2":                {dial: time.Second, protocol: 2},
			"protocol=3":                {dial: time.Second, protocol: 3},
			"client_name=api&decode_responses=True&encoding=utf-8&encoding_errors=strict&lib_name=saq&lib_version=1": {dial: time.Second},
			"retry_on_timeout=yes&socket_keepalive=True&socket_read_size=1024":                                       {dial: time.Second},
			"health_check_interval=30&socket_timeout=5&max_connections=20&ssl_cert_reqs=none": {
				dial: time.Second, idle: 30 * time.Second, read: 5 * time.Second, write: 5 * time.Second, pool: 20, pipeline: -1,
			},
		} {
			parsed, err := parseRedis(form + query)
			if err != nil {
				t.Errorf("%s%s: %v", form, query, err)
				continue
			}
			if got := optionsOf(parsed); got != want {
				t.Errorf("%s%s: got %+v, want %+v", form, query, got, want)
			}
		}
	}
}

// options is what the three forms have in common.
type options struct {
	dial, read, write, wait, idle time.Duration
	pool, pipeline, protocol      int
}

func optionsOf(u redisURL) options {
	switch {
	case u.sentinel != nil:
		o := u.sentinel
		return options{o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout, o.ConnMaxIdleTime, o.PoolSize, o.PipelinePoolSize, o.Protocol}
	case u.cluster != nil:
		o := u.cluster
		return options{o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout, o.ConnMaxIdleTime, o.PoolSize, o.PipelinePoolSize, o.Protocol}
	default:
		o := u.server
		return options{o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout, o.ConnMaxIdleTime, o.PoolSize, o.PipelinePoolSize, o.Protocol}
	}
}

// TestCredentials: who the gate is to the servers, as redis-py reads the same URL.
func TestCredentials(t *testing.T) {
	const hard = `p%ss/#?@:&=+;,^{|}<>"\[] é`
	for u, want := range map[string][3]string{ // address, username, password
		"redis://h":                               {"h:6379"},
		"redis://:pw@h":                           {"h:6379", "", "pw"},
		"redis://ann:p:w@h:1/2":                   {"h:1", "ann", "p:w"},
		"redis://ann@h":                           {"h:6379", "ann"},
		"redis://:p@ss@h":                         {"h:6379", "", "p@ss"},
		"redis://:p%ss%2@h":                       {"h:6379", "", "p%ss%2"},
		"redis://:p%40%23@h":                      {"h:6379", "", "p@#"},
		"redis://:p^{|}<>\"`\\ é+;@h":             {"h:6379", "", "p^{|}<>\"`\\ é+;"},
		"redis://:" + url.PathEscape(hard) + "@h": {"h:6379", "", hard},
		"redis://:" + url.QueryEscape(`#/?%`) + "@[::1]:1":        {"[::1]:1", "", "#/?%"},
		"redis://h?username=ann&password=pw":                      {"h:6379", "ann", "pw"},
		"redis://h?password=p%2541":                               {"h:6379", "", "pA"}, // decoded twice
		"redis://h?password=p%25ss":                               {"h:6379", "", "p%ss"},
		"redis://bob:x@h?username=ann&password=pw":                {"h:6379", "bob", "x"},
		"redis://bob@h?username=ann&password=pw":                  {"h:6379", "bob", "pw"},
		"unix:///run/r.sock?db=1&password=pw":                     {"/run/r.sock", "", "pw"},
		"unix://ann:pw@/run/r.sock":                               {"/run/r.sock", "ann", "pw"},
		"unix:///run/redis@queue/r.sock":                          {"/run/redis@queue/r.sock"},
		"redis://ann:p%ss^@h:1?addr=h:2":                          {"[h:1 h:2]", "ann", "p%ss^"},
		"redis://h:1?addr=h:2&username=ann&password=pw":           {"[h:1 h:2]", "ann", "pw"},
		"redis://s:p^@h:1?master_name=m&username=ann&password=pw": {"[h:1] as s:p^", "ann", "pw"},
	} {
		parsed, err := parseRedis(u)
		if err != nil {
			t.Errorf("%s: %v", u, err)
			continue
		}
		var got [3]string
		switch {
		case parsed.server != nil:
			got = [3]string{parsed.server.Addr, parsed.server.Username, parsed.server.Password}
		case parsed.cluster != nil:
			got = [3]string{fmt.Sprint(parsed.cluster.Addrs), parsed.cluster.Username, parsed.cluster.Password}
		default:
			o := parsed.sentinel
			got = [3]string{fmt.Sprintf("%v as %s:%s", o.SentinelAddrs, o.SentinelUsername, o.SentinelPassword), o.Username, o.Password}
		}
		if got != want {
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
