package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"

	"github.com/refrakt-hub/refrakt-gate/envoy"
)

// checkCmd sends one CheckRequest to a gate, in the form in which Envoy sends it.
type checkCmd struct {
	Addr    string            `help:"Address of the gate: host:port or unix:///path (default: GRPC_ADDR)."`
	Path    string            `default:"/run" help:"Path of the request, with its query."`
	Method  string            `default:"POST" help:"Method of the request."`
	IP      string            `default:"127.0.0.1" help:"Address of the peer that is connected to Envoy. If it is a trusted proxy, headers count."`
	User    string            `help:"Value of X-User-ID. It does not count if USER_ID_SOURCES of the gate is jwt alone."`
	Tier    string            `help:"Value of X-RateLimit-Tier."`
	Header  map[string]string `short:"H" mapsep:"none" placeholder:"NAME=VALUE" help:"Another header. Can be given several times."`
	Policy  string            `help:"Policy that Envoy's route names. If it is empty, the path decides."`
	Timeout time.Duration     `default:"2s" help:"How long to wait for the answer."`
	DryRun  bool              `help:"Ask no gate. Decide here by the policies of the environment, the buckets in Redis and a new look at the queue, and take no token and no place. Shows the state of each bucket."`
	Output  string            `short:"o" enum:"text,json" default:"text" help:"Form of the output: text or json."`
	TLS     clientTLS         `embed:"" prefix:"tls-"`
}

// Run implements the command. Its errors exit with 2, a denial with 1.
func (c checkCmd) Run(p *process) error {
	if c.DryRun {
		return c.runDry(p)
	}
	addr := c.Addr
	var gate TLSConfig // of the gate in the environment, if --addr names no other
	if addr == "" {
		cfg, errs := loadConfig(withoutPolicies(p.env))
		if len(errs) > 0 {
			return badSettings(errs)
		}
		addr, gate = dialable(cfg.GRPCAddr), cfg.TLS
	}
	creds, err := c.TLS.credentials(gate)
	if err != nil {
		return exit{exitUsage, err}
	}
	conn, err := grpc.NewClient(target(addr), grpc.WithTransportCredentials(creds))
	if err != nil {
		return exit{exitUsage, fmt.Errorf("reach %s: %w", addr, err)}
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	resp, err := authv3.NewAuthorizationClient(conn).Check(ctx, c.request())
	if err != nil {
		return exit{exitUsage, fmt.Errorf("ask the gate at %s: %w", addr, err)}
	}
	return c.report(p.stdout, verdictOf(resp))
}

func (c checkCmd) request() *authv3.CheckRequest {
	headers := map[string]string{":path": c.Path, ":method": c.Method}
	for name, value := range c.Header {
		headers[strings.ToLower(name)] = value
	}
	if c.User != "" {
		headers["x-user-id"] = c.User
	}
	if c.Tier != "" {
		headers["x-ratelimit-tier"] = c.Tier
	}
	attrs := &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: c.IP},
		}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: c.Method, Path: c.Path, Headers: headers,
		}},
	}
	if c.Policy != "" {
		attrs.ContextExtensions = map[string]string{envoy.PolicyExtension: c.Policy}
	}
	return &authv3.CheckRequest{Attributes: attrs}
}

// dialable returns the address to connect to for an address to listen on: localhost:9001
// for :9001.
func dialable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// target returns addr in the form of gRPC. The system resolves a name, once.
func target(addr string) string {
	if strings.HasPrefix(addr, "unix://") {
		return addr
	}
	return "passthrough:///" + addr
}
