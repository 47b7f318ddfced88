package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// greetingTimeout bounds the wait for a server that may have nothing to say.
	greetingTimeout = 300 * time.Millisecond
	// maxSaid bounds what is repeated of an error. Redis's own texts can be a page long.
	maxSaid = 300
)

// explain is err as it may be logged and shown: with what Redis said where the client
// library lost that, in one line of bounded length, without passwords.
func (g *gate) explain(ctx context.Context, c redis.UniversalClient, err error) error {
	text := err.Error()
	if _, answered := errors.AsType[redis.Error](err); !answered {
		if said := greeting(ctx, c); said != "" {
			text += ": Redis said: " + said
		}
	}
	return errors.New(g.showable(text))
}

// addressOf is where a client looks for Redis. Not every error of the client says it.
func addressOf(c redis.UniversalClient) string {
	switch c := c.(type) {
	case *redis.Client:
		return c.Options().Addr
	case *redis.ClusterClient:
		return strings.Join(c.Options().Addrs, ",")
	default:
		return "an unknown address"
	}
}

// greeting is the error with which a server turns a connection away before it is asked
// anything, as in protected mode or when it has too many clients; "" if there is none.
// go-redis takes it for the answer to its own first command, and reports only that the
// connection was closed.
func greeting(ctx context.Context, c redis.UniversalClient) string {
	ctx, cancel := context.WithTimeout(ctx, greetingTimeout)
	defer cancel()
	conn, err := dialAsClient(ctx, c)
	if err != nil {
		return ""
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(greetingTimeout)); err != nil {
		return ""
	}
	// A line that ends too late, or not at all, is shortened anyway.
	line, _ := bufio.NewReader(io.LimitReader(conn, 2*maxSaid)).ReadString('\n')
	said, isError := strings.CutPrefix(line, "-")
	if !isError {
		return ""
	}
	return strings.TrimSpace(said)
}

// dialAsClient connects as c does: to its server, to Sentinel's master, or to the first
// server of a cluster.
func dialAsClient(ctx context.Context, c redis.UniversalClient) (net.Conn, error) {
	switch c := c.(type) {
	case *redis.Client:
		o := c.Options()
		return o.Dialer(ctx, o.Network, o.Addr)
	case *redis.ClusterClient:
		o := c.Options()
		return redis.NewDialer(&redis.Options{DialTimeout: o.DialTimeout, TLSConfig: o.TLSConfig})(ctx, "tcp", o.Addrs[0])
	default:
		return nil, fmt.Errorf("no way to connect as %T", c)
	}
}

// showable is the first line of text, or the beginning of that, without passwords.
func (g *gate) showable(text string) string {
	// A server that does not know a command repeats what came with it: AUTH's password.
	text, _, _ = strings.Cut(text, ", with args beginning with")
	for _, password := range g.passwords {
		text = strings.ReplaceAll(text, password, "***")
	}
	text, _, _ = strings.Cut(text, "\n")
	if len(text) > maxSaid {
		text = strings.ToValidUTF8(text[:maxSaid], "") + "…"
	}
	return strings.TrimSpace(text)
}

// passwords are those in the URL.
func (u redisURL) passwords() []string {
	var all []string
	switch {
	case u.server != nil:
		all = []string{u.server.Password}
	case u.sentinel != nil:
		all = []string{u.sentinel.Password, u.sentinel.SentinelPassword}
	case u.cluster != nil:
		all = []string{u.cluster.Password}
	}
	return slices.DeleteFunc(all, func(p string) bool { return p == "" })
}
