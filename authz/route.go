package authz

import "strings"

// Policy names what is guarded; it is a label of the metrics.
type Policy string

// The policies. Only run and assistant are limited.
const (
	PolicyRun       Policy = "run"
	PolicyAssistant Policy = "assistant"
	// PolicyUnknown is a context extension that names no policy: a mistake in
	// Envoy's configuration.
	PolicyUnknown Policy = "unknown"
	// PolicyNone is a request to something that is not guarded.
	PolicyNone Policy = "none"
)

// maxPath bounds how much of a path is read, and how much of a query: more than
// the longest that any browser or server takes.
const maxPath = 8 << 10

// classify says which policy a request falls under: the one that Envoy's route
// names or, where it names none, that of the path.
func classify(extension, path string) Policy {
	switch p := Policy(extension); p {
	case "":
		return classifyPath(path)
	case PolicyRun, PolicyAssistant:
		return p
	default:
		return PolicyUnknown
	}
}

// classifyPath reads a :path as the API behind it may read it, decoded once. /run and
// everything below it is run. Some servers resolve dots, others serve /run/.. as
// something below /run, so either form of the path guards it. Where the two name
// different policies run counts: its requests are sure to become jobs, and each is
// admitted by itself. A path that can't be read counts as run too, and so does one
// that is too long to be read, never as unguarded.
func classifyPath(path string) Policy {
	raw, ok := pathOnly(path)
	if !ok {
		return PolicyRun
	}
	decoded := unescape(raw, false)
	if raw == "" || strings.IndexByte(decoded, 0) >= 0 {
		return PolicyRun
	}
	literal, resolved := firstSegments(decoded)
	for _, p := range []Policy{PolicyRun, PolicyAssistant} {
		if Policy(literal) == p || Policy(resolved) == p {
			return p
		}
	}
	return PolicyNone
}

// pathOnly is a :path without query and fragment, unless it is too long.
func pathOnly(path string) (raw string, ok bool) {
	head := path[:min(len(path), maxPath+1)]
	if i := strings.IndexAny(head, "?#"); i >= 0 {
		head = head[:i]
	}
	return head, len(head) <= maxPath
}

// firstSegments returns the first segment of a decoded path, with dots as they are and
// with dots resolved. Empty segments, parameters (;…) and what trails are left out.
func firstSegments(path string) (literal, resolved string) {
	depth := 0
	for segment := range strings.SplitSeq(path, "/") {
		segment, _, _ = strings.Cut(segment, ";")
		// Starlette's patterns end in $, which also matches before a last newline:
		// "/run\n" is served as /run.
		segment = strings.TrimRightFunc(segment, func(r rune) bool { return r < ' ' || r == 0x7f })
		switch segment {
		case "", ".":
		case "..":
			// What is at depth 0 is overwritten by the next segment, if there is one.
			depth = max(0, depth-1)
		default:
			if literal == "" {
				literal = segment
			}
			if depth == 0 {
				resolved = segment
			}
			depth++
		}
	}
	if depth == 0 {
		resolved = ""
	}
	return literal, resolved
}

// unescape decodes percent escapes once, as uvicorn does: what is no valid
// escape stays as it is. In a query, plus is a space.
func unescape(s string, query bool) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			out = append(out, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
		case c == '+' && query:
			out = append(out, ' ')
		default:
			out = append(out, c)
		}
	}
	return string(out)
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	default:
		return c - 'A' + 10
	}
}
