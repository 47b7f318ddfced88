package main

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// redisURL is a parsed URL of Redis: one of its fields is set.
type redisURL struct {
	server   *redis.Options
	sentinel *redis.FailoverOptions
	cluster  *redis.ClusterOptions
}

// The mistakes in a URL never quote it: it may hold a password.
var (
	errNotRedis = errors.New("not a Redis URL (redis://, rediss:// or unix://, see docs/configuration.md)")
	errHash     = errors.New("the URL holds a #, which ends it: in a password or a path, write # as %23")
	errAt       = errors.New("the URL holds an @ behind its host: in a password, write / as %2F and ? as %3F; behind the host, write @ as %40")
	errPath     = errors.New("the path of the URL is not the number of a database")
)

// parseRedis reads a URL as redis-py does, so that the API and the gate can have the
// same, with the parameters of redis-py and of go-redis. A URL with master_name is
// Sentinel's, another one with addr is a cluster's.
func parseRedis(raw string) (redisURL, error) {
	u, query, err := readURL(raw)
	if err != nil {
		return redisURL{}, err
	}
	security, err := takeTLS(u.Scheme == "rediss", query)
	if err != nil {
		return redisURL{}, err
	}
	switch {
	case query.Has("master_name"):
		return parseSentinel(u, query, security)
	case query.Has("addr"):
		return parseCluster(u, query, security)
	default:
		return parseServer(u, query, security)
	}
}

func parseServer(u *url.URL, query url.Values, security redisTLS) (redisURL, error) {
	takeCredentials(u, query)
	o, err := parseWith(redis.ParseURL, u, query)
	if err != nil {
		return redisURL{}, err
	}
	bindServer(o)
	security.apply(o.TLSConfig)
	return redisURL{server: o}, nil
}

func parseSentinel(u *url.URL, query url.Values, security redisTLS) (redisURL, error) {
	o, err := parseWith(redis.ParseFailoverURL, u, query)
	if err != nil {
		return redisURL{}, err
	}
	if o.MasterName == "" {
		return redisURL{}, errors.New("the parameter master_name is empty")
	}
	if err := primariesOnly(map[string]bool{
		"replica_only": o.ReplicaOnly, "route_by_latency": o.RouteByLatency, "route_randomly": o.RouteRandomly,
	}); err != nil {
		return redisURL{}, err
	}
	bindSentinel(o)
	security.apply(o.TLSConfig)
	return redisURL{sentinel: o}, nil
}

func parseCluster(u *url.URL, query url.Values, security redisTLS) (redisURL, error) {
	if db := query.Get("db"); strings.Trim(u.Path, "/0") != "" || db != "" && db != "0" {
		return redisURL{}, errors.New("a Redis Cluster has no database but 0")
	}
	query.Del("db")
	takeCredentials(u, query)
	o, err := parseWith(redis.ParseClusterURL, u, query)
	if err != nil {
		return redisURL{}, err
	}
	if err := primariesOnly(map[string]bool{
		"read_only": o.ReadOnly, "route_by_latency": o.RouteByLatency, "route_randomly": o.RouteRandomly,
	}); err != nil {
		return redisURL{}, err
	}
	bindCluster(o)
	security.apply(o.TLSConfig)
	return redisURL{cluster: o}, nil
}

func primariesOnly(parameters map[string]bool) error {
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		if parameters[name] {
			return fmt.Errorf("the gate can't work with the parameter %s: only primaries have the newest state", name)
		}
	}
	return nil
}

// readURL takes the URL apart where redis-py takes it apart. Go's parser is stricter
// about characters that are not percent-encoded; those that have one meaning only are
// encoded here.
func readURL(raw string) (*url.URL, url.Values, error) {
	raw = strings.TrimSpace(strings.NewReplacer("\t", "", "\r", "", "\n", "").Replace(raw))
	scheme, rest, found := strings.Cut(raw, "://")
	if !found {
		return nil, nil, errNotRedis
	}
	if strings.Contains(rest, "#") {
		return nil, nil, errHash
	}
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	if authority != "" && strings.Contains(tail, "@") {
		return nil, nil, errAt
	}
	if i := strings.LastIndex(authority, "@"); i >= 0 {
		authority = encodeUserinfo(authority[:i]) + authority[i:]
	}
	u, err := url.Parse(scheme + "://" + encodeLonePercents(authority+tail))
	if err != nil || !slices.Contains([]string{"redis", "rediss", "unix"}, u.Scheme) {
		return nil, nil, errNotRedis
	}
	database := strings.Trim(u.Path, "/")
	if u.Scheme != "unix" && strings.Trim(database, "0123456789") != "" {
		return nil, nil, errPath
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, nil, errors.New("the parameters of the URL can't be read: write ; as %3B")
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if len(query[name]) > 1 && name != "addr" {
			return nil, nil, fmt.Errorf("the parameter %s is there more than once", shownName(name))
		}
	}
	return u, query, nil
}

// encodeUserinfo encodes what Go does not allow between // and @ (RFC 3986, section 3.2.1).
func encodeUserinfo(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		letterOrDigit := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if c < ' ' || c == 0x7f || letterOrDigit || strings.IndexByte("-._~!$&'()*+,;=:@%", c) >= 0 {
			b.WriteByte(c) // control characters are refused
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// encodeLonePercents encodes each % that is not followed by two hex digits: redis-py
// takes it literally.
func encodeLonePercents(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteByte(s[i])
		if s[i] == '%' && (i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2])) {
			b.WriteString("25")
		}
	}
	return b.String()
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// takeCredentials moves username and password from the parameters to where go-redis
// looks for them. As with redis-py, those before the @ count first.
func takeCredentials(u *url.URL, query url.Values) {
	username := u.User.Username()
	password, _ := u.User.Password()
	if username == "" {
		username = pythonValue(query, "username")
	}
	if password == "" {
		password = pythonValue(query, "password")
	}
	query.Del("username")
	query.Del("password")
	if username != "" || password != "" {
		u.User = url.UserPassword(username, password)
	}
}

// pythonValue is a parameter as redis-py has it, which decodes it twice.
func pythonValue(query url.Values, name string) string {
	value, err := url.PathUnescape(encodeLonePercents(query.Get(name)))
	if err != nil {
		return query.Get(name) // can't be: each % is followed by two hex digits
	}
	return value
}

// shownName is the name of a parameter if it looks like one. What does not may be part
// of a password.
func shownName(name string) string {
	isWord := func(r rune) bool {
		return r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	}
	if name == "" || len(name) > 40 || strings.ContainsFunc(name, func(r rune) bool { return !isWord(r) }) {
		return "with a name that is none"
	}
	return name
}
