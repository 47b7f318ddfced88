package authz

import (
	"context"
	"strings"
	"time"

	"github.com/refrakt-hub/refrakt-gate/envoy"
	"github.com/refrakt-hub/refrakt-gate/policy"
)

// configWarning names a setting, of Envoy or of a proxy before it, that a request has
// shown not to be as the gate expects; it is a label of the metrics. Where Envoy is set
// up like envoy.yaml, no client can bring about the first three.
type configWarning string

const (
	warnPath     configWarning = "path"
	warnPolicy   configWarning = "policy"
	warnHeaders  configWarning = "headers"
	warnClient   configWarning = "client"
	warnIPHeader configWarning = "client_ip_header"
)

var configWarnings = map[configWarning]string{
	warnPath: "a path is not normalised; where Envoy routes by such paths it may route past the gate " +
		"(normalize_path, merge_slashes, path_with_escaped_slashes_action)",
	warnPolicy:  "Envoy's route names another policy than its path; the route counts (context_extensions)",
	warnHeaders: "a request had more headers than the gate reads, so it read none, and the caller is the peer (max_headers_count, allowed_headers)",
	warnClient: "a trusted proxy has named nobody but trusted proxies; all its clients share one bucket " +
		"(TRUSTED_PROXIES, CLIENT_IP_HEADER, allowed_headers)",
	warnIPHeader: "a trusted proxy has sent CLIENT_IP_HEADER with something else than one address, so X-Forwarded-For counts; " +
		"clients may share a bucket (CLIENT_IP_HEADER, TRUSTED_PROXIES)",
}

// Doubts returns what the values of the label about of refrakt_gate_envoy_doubts_total mean.
func Doubts() map[string]string {
	words := make(map[string]string, len(configWarnings))
	for about, text := range configWarnings {
		words[string(about)] = text
	}
	return words
}

// warn counts, and logs each kind of warning once.
func (s *Server) warn(ctx context.Context, about configWarning) {
	s.metrics.configWarnings.WithLabelValues(string(about)).Inc()
	if _, logged := s.warned.LoadOrStore(about, true); !logged {
		s.log.WarnContext(ctx, "Envoy may not be set up as the gate expects: "+configWarnings[about], "about", about)
	}
}

// diagnose looks, once the request is decided, for what Envoy would not have sent if it
// were set up as the gate expects.
func (s *Server) diagnose(ctx context.Context, rules *rules, r envoy.Request, d *Decision) {
	path, ok := policy.PathOnly(r.Path)
	switch {
	case !ok:
	case !isNormal(path):
		s.warn(ctx, warnPath)
	case r.Policy != "" && d.Policy != policyUnknown && !strings.ContainsAny(path, "%;"):
		// With escapes and parameters Envoy's releases don't agree on what the route is.
		if p := rules.set.Match(r.Method, path); p != nil && p.Name != d.Policy {
			s.warn(ctx, warnPolicy)
		}
	}
	if r.TooManyHeaders {
		s.warn(ctx, warnHeaders)
	}
	if d.Caller.IPFrom == IPFromProxy {
		s.warn(ctx, warnClient)
	}
	if d.Caller.BadIPHeader {
		s.warn(ctx, warnIPHeader)
	}
	if s.coverage.note(r, d.Policy != policyNone, time.Now()) {
		s.log.WarnContext(ctx, "none of the requests that Envoy asks about is guarded, so all pass: "+
			"name the policy in Envoy's routes (context_extensions), or have Envoy ask about the paths of the policies")
	}
}

// isNormal says whether a path can come from an Envoy that normalises paths, merges
// slashes and rejects escaped ones.
func isNormal(path string) bool {
	for i := 0; i < len(path); i++ {
		rest := path[i:]
		switch path[i] {
		case '\\':
			return false
		case '/':
			segment, _, _ := strings.Cut(rest[1:], "/")
			if segment == "." || segment == ".." || segment == "" && len(rest) > 1 {
				return false
			}
		case '%':
			// An escape that is not valid stays what it is: a percent sign, which is not unreserved.
			if isUnreservedOrSlash(policy.Unescape(rest[:min(len(rest), 3)])[0]) {
				return false
			}
		}
	}
	return true
}

// isUnreservedOrSlash says whether c is unreserved (RFC 3986, section 2.3) or a slash.
func isUnreservedOrSlash(c byte) bool {
	letterOrDigit := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
	return letterOrDigit || strings.IndexByte(`-._~/\`, c) >= 0
}
