package authz

import (
	"context"
	"strings"

	"github.com/refrakt-hub/refrakt-gate/envoy"
)

// doubt is about a setting of Envoy's that is not as the gate expects, which a
// request has shown; it is a label of the metrics. No client can bring the first
// three about where Envoy is set up like envoy.yaml.
type doubt string

const (
	doubtPath    doubt = "path"
	doubtPolicy  doubt = "policy"
	doubtHeaders doubt = "headers"
	doubtClient  doubt = "client"
)

// doubts are the warnings.
var doubts = map[doubt]string{
	doubtPath: "a path is not normalised; where Envoy routes by such paths it may route past the gate " +
		"(normalize_path, merge_slashes, path_with_escaped_slashes_action)",
	doubtPolicy:  "Envoy's route names another policy than its path; the route counts (context_extensions)",
	doubtHeaders: "a request had more headers than are read, so none was, and the caller is the peer (max_headers_count, allowed_headers)",
	doubtClient: "a trusted proxy has named nobody but trusted proxies; all its clients share one bucket " +
		"(TRUSTED_PROXIES, CLIENT_IP_HEADER, allowed_headers)",
}

// doubt counts, and warns of each kind once.
func (s *Server) doubt(ctx context.Context, about doubt) {
	s.metrics.doubts.WithLabelValues(string(about)).Inc()
	if _, said := s.doubted.LoadOrStore(about, true); !said {
		s.log.WarnContext(ctx, "Envoy may not be set up as the gate expects: "+doubts[about], "about", about)
	}
}

// doubtEnvoy looks for what Envoy would not have sent, once the request is decided.
func (s *Server) doubtEnvoy(ctx context.Context, r envoy.Request, d Decision) {
	path, ok := pathOnly(r.Path)
	switch {
	case !ok:
	case !isNormal(path):
		s.doubt(ctx, doubtPath)
	case r.Policy != "" && d.Policy != PolicyUnknown && !strings.ContainsAny(path, "%;"):
		// With escapes and parameters Envoy's releases don't agree on what the route is.
		if p := classifyPath(path); p != PolicyNone && p != d.Policy {
			s.doubt(ctx, doubtPolicy)
		}
	}
	if r.Crowded {
		s.doubt(ctx, doubtHeaders)
	}
	if d.Charged.IPFrom == IPFromProxy {
		s.doubt(ctx, doubtClient)
	}
}

// isNormal says that a path is as an Envoy leaves it that normalises paths, merges
// slashes and lets no escaped ones through.
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
			if c := unescape(rest[:min(len(rest), 3)], false); len(c) == 1 && c != "%" && isUnreservedOrSlash(c[0]) {
				return false
			}
		}
	}
	return true
}

// isUnreservedOrSlash has the unreserved characters of RFC 3986, section 2.3.
func isUnreservedOrSlash(c byte) bool {
	letterOrDigit := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
	return letterOrDigit || strings.IndexByte(`-._~/\`, c) >= 0
}
