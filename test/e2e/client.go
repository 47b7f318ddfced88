package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Response is an answer, read to its end.
type Response struct {
	Status int
	Header http.Header
	Body   string
}

// RetryAfter is the answer's Retry-After, which must be a number of seconds of at least 1.
func (r Response) RetryAfter(tb testing.TB) time.Duration {
	tb.Helper()
	wait, err := r.Wait()
	if err != nil {
		tb.Fatal(err)
	}
	return wait
}

// Wait is the same where a test can't be ended.
func (r Response) Wait() (time.Duration, error) {
	seconds, err := strconv.Atoi(r.Header.Get("Retry-After"))
	if err != nil || seconds < 1 {
		return 0, fmt.Errorf("Retry-After: got %q of a %d, want whole seconds of at least 1", r.Header.Get("Retry-After"), r.Status) //nolint:staticcheck // a header's name
	}
	return time.Duration(seconds) * time.Second, nil
}

// client follows no redirects: they are answers to look at.
var client = &http.Client{
	Timeout:       30 * time.Second,
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

var callers atomic.Uint32

// Caller is a header that makes a request come from an address no other test of the package uses. The tests' own
// peer, loopback, is a trusted proxy, so the gate believes it.
func Caller(tb testing.TB) string {
	tb.Helper()
	n := callers.Add(1)
	switch {
	case n < 256:
		return fmt.Sprintf("CF-Connecting-IP: 198.51.100.%d", n)
	case n < 512:
		return fmt.Sprintf("CF-Connecting-IP: 203.0.113.%d", n-256)
	}
	tb.Fatal("no documentation addresses are left for this caller")
	return ""
}

// crowd is for many requests at once, over connections that are kept.
var crowd = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 300}}

// Ask sends a POST and may be called by any goroutine; a body is JSON, headers are lines of the form "Name: value". A
// request that was begun is also ended, so that each is counted.
func (e *Envoy) Ask(ctx context.Context, path, body string, headers ...string) (Response, error) {
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, "http://"+e.Addr+path, strings.NewReader(body))
	if err != nil {
		return Response{}, fmt.Errorf("make request: %w", err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	resp, err := crowd.Do(req)
	if err != nil {
		return Response{}, fmt.Errorf("ask: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return Response{}, fmt.Errorf("read answer: %w", err)
	}
	return Response{Status: resp.StatusCode, Header: resp.Header, Body: string(text)}, nil
}

// do sends one request; headers are lines of the form "Name: value".
func do(tb testing.TB, method, url string, body io.Reader, headers []string) Response {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, url, body)
	if err != nil {
		tb.Fatalf("make request: %v", err)
	}
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ": ")
		if !ok {
			tb.Fatalf("header %q is not of the form Name: value", h)
		}
		req.Header.Add(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		tb.Fatalf("%s %s: %v", method, url, err)
	}
	return read(tb, resp)
}

func read(tb testing.TB, resp *http.Response) Response {
	tb.Helper()
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatalf("read body: %v", err)
	}
	return Response{Status: resp.StatusCode, Header: resp.Header, Body: string(body)}
}

// raw sends an HTTP/1.1 request as these very lines, for paths and headers net/http would mend.
func raw(tb testing.TB, addr, requestLine string, headers []string) Response {
	tb.Helper()
	var d net.Dialer
	conn, err := d.DialContext(tb.Context(), "tcp", addr)
	if err != nil {
		tb.Fatalf("connect: %v", err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		tb.Fatalf("set deadline: %v", err)
	}
	lines := append([]string{requestLine, "Host: api.test", "Connection: close", "Content-Length: 0"}, headers...)
	if _, err := io.WriteString(conn, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		tb.Fatalf("send %q: %v", requestLine, err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		tb.Fatalf("answer to %q: %v", requestLine, err)
	}
	return read(tb, resp)
}
