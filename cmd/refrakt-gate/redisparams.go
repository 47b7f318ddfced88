package main

import (
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// redisPyEquals are the parameters of redis-py that have an equal in go-redis, and how
// they are translated. A translation returns nil for a value that it can't read.
var redisPyEquals = map[string]func(value string) url.Values{
	"socket_timeout":         seconds("read_timeout", "write_timeout"),
	"socket_connect_timeout": seconds("dial_timeout"),
	"timeout":                seconds("pool_timeout"), // of BlockingConnectionPool
	// redis-py asks a connection that was idle for so long whether it still works;
	// go-redis closes it and opens another.
	"health_check_interval": seconds("conn_max_idle_time"),
	"max_connections":       connections,
}

// redisPyIgnored are the parameters of redis-py that change nothing for the gate: they
// are about Python's types and buffers, about what the gate never does (retries) or
// always does (TCP keepalive), or about the client's name, which is always the gate's.
var redisPyIgnored = []string{
	"client_name", "decode_responses", "encoding", "encoding_errors", "lib_name", "lib_version",
	"retry_on_timeout", "socket_keepalive", "socket_read_size",
}

// parseWith translates the parameters and has go-redis parse the URL.
func parseWith[O any](parse func(string) (*O, error), u *url.URL, query url.Values) (*O, error) {
	if err := translate(query); err != nil {
		return nil, err
	}
	o, err := parse(withQuery(u, query))
	if err != nil {
		return nil, blame(parse, u, query)
	}
	return o, nil
}

func translate(query url.Values) error {
	for _, name := range redisPyIgnored {
		query.Del(name)
	}
	for _, name := range slices.Sorted(maps.Keys(redisPyEquals)) {
		value := query.Get(name)
		query.Del(name)
		if value == "" { // for redis-py it is not there
			continue
		}
		equal := redisPyEquals[name](value)
		if equal == nil {
			return badValue(name)
		}
		for _, to := range slices.Sorted(maps.Keys(equal)) {
			if query.Has(to) {
				return fmt.Errorf("the parameters %s and %s say the same: which one counts?", name, to)
			}
			query[to] = equal[to]
		}
	}
	if p := query.Get("protocol"); p != "" && p != "2" && p != "3" {
		return badValue("protocol")
	}
	if db, err := strconv.Atoi(query.Get("db")); err == nil && db < 0 {
		return badValue("db")
	}
	return nil
}

func badValue(name string) error {
	return fmt.Errorf("the parameter %s has a value that can't be taken", name)
}

// seconds translates a number of seconds; 0 means the default, as none does.
func seconds(names ...string) func(string) url.Values {
	return func(value string) url.Values {
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || math.IsNaN(f) || f < 0 || f > math.MaxInt32 {
			return nil
		}
		equal := url.Values{}
		if d := time.Duration(f * float64(time.Second)); d > 0 {
			for _, name := range names {
				equal.Set(name, d.String())
			}
		}
		return equal
	}
}

// connections translates the number of connections at most. go-redis has a second pool
// for pipelines, which would come on top.
func connections(value string) url.Values {
	n, err := strconv.ParseInt(value, 10, 32)
	switch {
	case err != nil || n < 0:
		return nil
	case n == 0: // any number
		return url.Values{}
	}
	return url.Values{"pool_size": {value}, "pipeline_pool_size": {"-1"}}
}

// blame says which parameter go-redis does not take. Its own error may quote the value.
func blame[O any](parse func(string) (*O, error), u *url.URL, query url.Values) error {
	taken := func(name string, values ...string) bool {
		query := url.Values{}
		if name != "" {
			query[name] = values
		}
		_, err := parse(withQuery(u, query))
		return err == nil
	}
	if !taken("") {
		return errNotRedis
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		switch {
		case taken(name, query[name]...):
		case name == "addr" || taken(name, ""):
			return badValue(name)
		default:
			return fmt.Errorf("the gate knows no parameter %s (docs/configuration.md lists them)", shownName(name))
		}
	}
	return errNotRedis
}

func withQuery(u *url.URL, query url.Values) string {
	v := *u
	v.RawQuery = query.Encode()
	return v.String()
}
