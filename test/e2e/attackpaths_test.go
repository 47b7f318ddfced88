package e2e_test

import (
	"slices"
	"strings"
)

func paths() []attack {
	long := strings.Repeat("./", 2500)
	rows := make([]attack, 0, 80)
	for _, path := range []string{
		"/run", "/run?x=/ping", "/run?", "/run#x", "/run/", "/run//", "/run/.", "/run/x", "//run", "///run", "/./run",
		"/x/../run", "/ping/../run", "/a/..;/run", "/a/..;x=1/run", "/../run", "/..//run", "/x/./..//./run", `/\run`, `\run`, "/x/..\\run",
		"/r%75n", "/ru%6e", "/ru%6E", "/%72%75%6e", "/%72%75%6e%2f", "//%72un", "/%2e/run", "/ping/%2e%2e/run", "/%2e%2e/run",
		"/run%0a", "/run%0A", "/r%75n%0a", "//run%0a", "/run%0a%0a", "/run%0a?x", "/run%0d%0a", "/run%00", "/run%00x", "/run%09",
		"/run%20", "/run%2f", "/run%2Fx", "/%2frun", "/%2Frun", "/ping/..%2frun", "/ping%2f..%2frun", "/run%5c", "/run%5C..%5cping",
		"/run%3f", "/run%23", "/run%3Bx", "/run;", "/run;a=1", "/run;a=1/x", "/;/run", "/;a/run",
		"/%2572un", "/r%u0075n", "/%c0%afrun", "/run%ff", "/run%c2%85", "/run%e2%80%8b", "/RUN", "/Run", "/rUn%0a",
		"run", "*", "http://api.test/run", "http://127.0.0.1/run", "http:/run", "//api.test/run", "/http://api.test/run",
		"/run/../ping/../run", "/assistant/../run", "/run\t",
		"/run/..", "/run/../", "/run/../ping", "/run/%2e%2e/ping", "/run/x/../../ping", "/run/..;/ping", "/run%2f..%2fping", "/run/../assistant",
	} {
		rows = append(rows, attack{from: proxy, spend: []string{"CF-Connecting-IP: {A}"}, line: "POST " + path, headers: []string{"CF-Connecting-IP: {A}"}, say: code("POST " + path)})
	}
	return append(rows,
		attack{from: proxy, spend: []string{"CF-Connecting-IP: {A}"}, line: "POST /" + long + "run", headers: []string{"CF-Connecting-IP: {A}"}, say: "`POST /././…/run`, 5 kB of it"},
		attack{from: proxy, spend: []string{"CF-Connecting-IP: {A}"}, line: "POST /" + strings.Repeat("x/../", 2000) + "r%75n", headers: []string{"CF-Connecting-IP: {A}"}, say: "`POST /x/../x/../…/r%75n`, 10 kB of it"},
		attack{from: proxy, spend: []string{"CF-Connecting-IP: {A}"}, line: "POST /run?" + strings.Repeat("a=1&", 5000), headers: []string{"CF-Connecting-IP: {A}"}, say: "`POST /run?a=1&a=1&…`, 20 kB of it"},
	)
}

func requests() []attack {
	const a = "CF-Connecting-IP: {A}"
	preflight := []string{a, "Origin: https://app.test", "Access-Control-Request-Method: POST"}
	smuggled := "POST /run HTTP/1.1\r\nHost: api.test\r\nCF-Connecting-IP: {A}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	head := func(more string) string {
		return "POST /ping HTTP/1.1\r\nHost: api.test\r\nCF-Connecting-IP: {A}\r\n" + more + "\r\n"
	}
	rows := []attack{
		{line: "GET /run", headers: []string{a}},
		{line: "HEAD /run", headers: []string{a}},
		{line: "PUT /run", headers: []string{a}},
		{line: "post /run", headers: []string{a}},
		{line: "TRACE /run", headers: []string{a}},
		{line: "FOO /run", headers: []string{a}},
		{line: "CONNECT api.test:80", headers: []string{a}},
		{line: "OPTIONS /run", headers: []string{a}},
		{line: "OPTIONS /run", headers: preflight},
		{line: "OPTIONS /run", headers: append([]string{"X-HTTP-Method-Override: POST", "X-Method-Override: POST", "X-HTTP-Method: POST"}, preflight...)},
		{line: "POST /run", headers: preflight},
		{line: "GET /run", headers: append([]string{"X-HTTP-Method-Override: POST"}, preflight...)},
		{line: "POST /ping", headers: []string{a, "X-Original-URL: /run", "X-Rewrite-URL: /run", "X-Forwarded-Uri: /run"}},
		{line: "POST /ping", headers: []string{a, "X-Envoy-Original-Path: /run", "X-Envoy-Original-Host: api.test"}},
		{line: "POST /run", headers: []string{a, "X-Envoy-Original-Path: /ping", "X-Original-URL: /ping", "X-Rewrite-URL: /ping"}},
		{line: "POST /ping", headers: []string{a, "X-Forwarded-Prefix: /run", "X-Forwarded-Path: /run"}},
		{line: "POST /run", headers: []string{a, "Upgrade: websocket", "Connection: Upgrade"}},
		{line: "POST /run", headers: []string{a, "X-Envoy-Auth-Failure-Mode-Allowed: true"}},
		{line: "POST /run", headers: []string{a, "X-Envoy-Internal: true", "X-Envoy-Upstream-RQ-Timeout-Ms: 0", "X-Envoy-Retry-On: 5xx,gateway-error,retriable-4xx", "X-Envoy-Max-Retries: 9"}},
		{line: "POST /run", headers: []string{a, "Content-Type: application/grpc", "TE: trailers"}, say: "`POST /run`, `Content-Type: application/grpc` (gRPC has its status further in)"},
		{line: "POST /run", headers: []string{a, "Policy: none", "X-Policy: assistant", "Verdict: allow"}},
		{say: "`POST /run` by HTTP/1.0", text: "POST /run HTTP/1.0\r\nHost: api.test\r\nCF-Connecting-IP: {A}\r\nContent-Length: 0\r\n\r\n"},
		{say: "`POST /run` by HTTP/0.9", text: "POST /run\r\n\r\n"},
		{say: "`POST /run` with `Upgrade: h2c`", text: "POST /run HTTP/1.1\r\nHost: api.test\r\nCF-Connecting-IP: {A}\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 0\r\n\r\n"},
		{say: "`GET /ping` and `POST /run` in one packet", text: "GET /ping HTTP/1.1\r\nHost: api.test\r\nCF-Connecting-IP: {A}\r\n\r\n" + smuggled},
		{say: "`POST /ping`, `Content-Length` and `Transfer-Encoding` at odds, `POST /run` in the body", text: head("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n" + smuggled},
		{say: "`POST /ping`, `Transfer-Encoding: xchunked`, `POST /run` in the body", text: head("Content-Length: 0\r\nTransfer-Encoding: xchunked\r\n") + smuggled},
		{say: "`POST /ping`, `Transfer-Encoding : chunked`, `POST /run` in the body", text: head("Content-Length: 0\r\nTransfer-Encoding : chunked\r\n") + smuggled},
		{say: "`POST /ping`, two `Content-Length`, `POST /run` in the body", text: head("Content-Length: 0\r\nContent-Length: 130\r\n") + smuggled},
		{say: "`POST /ping`, `Content-Length: +0`, `POST /run` in the body", text: head("Content-Length: +0\r\n") + smuggled},
		{say: "`POST /run` without `Host`", text: "POST /run HTTP/1.1\r\nCF-Connecting-IP: {A}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		{say: "two spaces in `POST  /run`", text: "POST  /run HTTP/1.1\r\nHost: api.test\r\nCF-Connecting-IP: {A}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		{say: "`/r` and `un` on two lines", text: "POST /r\r\n un HTTP/1.1\r\nHost: api.test\r\nCF-Connecting-IP: {A}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		{say: "`:path` twice, `/ping` and `/run`", fields: []string{":method: POST", ":scheme: http", ":authority: api.test", ":path: /ping", ":path: /run", "cf-connecting-ip: {A}"}},
		{say: "no `:path`", fields: []string{":method: POST", ":scheme: http", ":authority: api.test", "cf-connecting-ip: {A}"}},
		{say: "an empty `:path`", fields: []string{":method: POST", ":scheme: http", ":authority: api.test", ":path: ", "cf-connecting-ip: {A}"}},
		{say: "`:path` after a header", fields: []string{":method: POST", ":scheme: http", ":authority: api.test", "cf-connecting-ip: {A}", ":path: /run"}},
		{say: "a header `path: /run` and `:path: /ping`", fields: []string{":method: POST", ":scheme: http", ":authority: api.test", ":path: /ping", "path: /run", "cf-connecting-ip: {A}"}},
		{say: "`:path` with a line break and a request", fields: []string{":method: POST", ":scheme: http", ":authority: api.test", ":path: /ping HTTP/1.1\r\nHost: x\r\n\r\nPOST /run", "cf-connecting-ip: {A}"}},
		{say: "`:method` with a line break and a request", fields: []string{":method: POST /run HTTP/1.1\r\n\r\nGET", ":scheme: http", ":authority: api.test", ":path: /ping", "cf-connecting-ip: {A}"}},
		{say: "a header value with a line break and a request", fields: []string{":method: POST", ":scheme: http", ":authority: api.test", ":path: /ping", "cf-connecting-ip: {A}", "x: y\r\n\r\nPOST /run HTTP/1.1\r\nHost: x\r\n\r\n"}},
		{say: "`transfer-encoding: chunked`", fields: []string{":method: POST", ":scheme: http", ":authority: api.test", ":path: /run", "transfer-encoding: chunked", "cf-connecting-ip: {A}"}},
		{say: "`CONNECT` with `:protocol: websocket` and `/run`", fields: []string{":method: CONNECT", ":protocol: websocket", ":scheme: http", ":authority: api.test", ":path: /run", "cf-connecting-ip: {A}"}},
	}
	for i, r := range rows {
		rows[i].from, rows[i].spend = proxy, []string{a}
		if r.say == "" {
			r.headers = slices.DeleteFunc(slices.Clone(r.headers), func(h string) bool { return h == a })
			rows[i].say = r.describe()
		}
	}
	return rows
}

func benign() []attack {
	lines := []string{
		"GET /ping", "POST /ping", "GET /ping?next=/run", "GET /ping%20", "GET /pi%6eg", "GET //ping", "GET /", "GET /docs", "GET /runner", "GET /run-x", "GET /runs/1", "GET /xrun",
		"GET /x/run", "GET /assistants", "GET /jobs/run", "GET /jobs/a%20b", "GET /jobs/%C3%BC;v=1", "GET /.well-known/x", "OPTIONS /ping", "HEAD /ping",
	}
	rows := make([]attack, len(lines))
	for i, line := range lines {
		rows[i] = attack{from: proxy, spend: []string{"CF-Connecting-IP: {A}"}, line: line, headers: []string{"CF-Connecting-IP: {A}"}, say: code(line)}
	}
	return rows
}
