// Package traces runs the gate beside the receiver of the OpenTelemetry Collector, and looks at the spans that arrive.
package traces

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/config/confignet"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
)

// Collector is the OTLP receiver of the OpenTelemetry Collector, with both protocols.
type Collector struct {
	GRPC, HTTP string // "127.0.0.1:4317" and "127.0.0.1:4318", but for the ports

	dir  string
	sink *consumertest.TracesSink
	stop func() // ends the receiver
}

// StartCollector starts a collector. It ends with the test.
func StartCollector(tb testing.TB) *Collector {
	tb.Helper()
	c := &Collector{dir: tb.TempDir(), sink: new(consumertest.TracesSink)}
	c.GRPC, c.HTTP = forward(tb, c.socket("grpc")), forward(tb, c.socket("http"))
	c.Start(tb)
	return c
}

func (c *Collector) socket(protocol string) string { return filepath.Join(c.dir, protocol) }

// Start starts the receiver again after Stop. It listens on sockets, because it can't say which port the kernel gave it.
func (c *Collector) Start(tb testing.TB) {
	tb.Helper()
	factory := otlpreceiver.NewFactory()
	cfg := factory.CreateDefaultConfig().(*otlpreceiver.Config)
	cfg.Protocols.GRPC.GetOrInsertDefault().NetAddr = confignet.AddrConfig{Endpoint: c.socket("grpc"), Transport: confignet.TransportTypeUnix}
	cfg.Protocols.HTTP.GetOrInsertDefault().ServerConfig.NetAddr = confignet.AddrConfig{Endpoint: c.socket("http"), Transport: confignet.TransportTypeUnix}
	r, err := factory.CreateTraces(context.Background(), receivertest.NewNopSettings(factory.Type()), cfg, c.sink)
	if err != nil {
		tb.Fatalf("make the collector's receiver: %v", err)
	}
	if err := r.Start(context.Background(), componenttest.NewNopHost()); err != nil {
		tb.Fatalf("start the collector's receiver: %v", err)
	}
	c.stop = sync.OnceFunc(func() { shutdown(tb, r) })
	tb.Cleanup(c.stop)
}

// Stop ends the receiver: connections are refused then.
func (c *Collector) Stop() { c.stop() }

func shutdown(tb testing.TB, r receiver.Traces) {
	if err := r.Shutdown(context.Background()); err != nil {
		tb.Errorf("stop the collector's receiver: %v", err)
	}
}

// forward passes connections to a socket, and returns the address that it takes them at.
func forward(tb testing.TB, socket string) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var all sync.WaitGroup
	tb.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { pass(from, socket) })
		}
	})
	return l.Addr().String()
}

func pass(from net.Conn, socket string) {
	defer func() { _ = from.Close() }()
	to, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(from, to)
		_ = from.Close()
	})
	_, _ = io.Copy(to, from)
	_ = to.Close()
	back.Wait()
}

// Span is a span that has arrived, with the resource that it is of.
type Span struct {
	ptrace.Span

	Resource pcommon.Resource
}

// Service is the name of the service that the span is of.
func (s Span) Service() string { return text(s.Resource.Attributes(), "service.name") }

// Text is the value of an attribute of the span, as text; "" if it has none.
func (s Span) Text(attribute string) string { return text(s.Attributes(), attribute) }

func text(m pcommon.Map, key string) string {
	v, ok := m.Get(key)
	if !ok {
		return ""
	}
	return v.AsString()
}

// Spans are the spans that have arrived.
func (c *Collector) Spans() []Span {
	var all []Span
	for _, traces := range c.sink.AllTraces() {
		for _, resource := range traces.ResourceSpans().All() {
			for _, scope := range resource.ScopeSpans().All() {
				for _, span := range scope.Spans().All() {
					all = append(all, Span{span, resource.Resource()})
				}
			}
		}
	}
	return all
}

// JSON is all that has arrived, of all services, as text.
func (c *Collector) JSON(tb testing.TB) string {
	tb.Helper()
	var all []byte
	for _, traces := range c.sink.AllTraces() {
		text, err := new(ptrace.JSONMarshaler).MarshalTraces(traces)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, text...)
	}
	return string(all)
}
