package authz

import "strings"

// Policy is the set of limits that a request falls under; it is a label of the metrics.
type Policy string

// The policies.
const (
	// PolicyRun guards /run and all paths below it.
	PolicyRun Policy = "run"
	// PolicyAssistant guards /assistant and all paths below it.
	PolicyAssistant Policy = "assistant"
	// PolicyUnknown stands for a policy that Envoy's route names and that does not exist:
	// a mistake in Envoy's configuration.
	PolicyUnknown Policy = "unknown"
	// PolicyNone stands for a request that is not guarded.
	PolicyNone Policy = "none"
)

// maxPath is the length in bytes of the longest path, and of the longest query, that is
// read. No browser or server takes a longer one.
const maxPath = 8 << 10

// classify returns the policy that Envoy's route names or, if the route names none, the
// policy of the path.
func classify(extension, path string) Policy {
	switch Policy(extension) {
	case "":
		return classifyPath(path)
	// The extension itself is text of the request, which nobody may keep.
	case PolicyRun:
		return PolicyRun
	case PolicyAssistant:
		return PolicyAssistant
	default:
		return PolicyUnknown
	}
}

// classifyPath returns the policy of a :path, decoded once as the API decodes it. Some
// servers resolve dots, others serve /run/.. as a path below /run. So a path is guarded
// if either form of it is. If the two forms have different policies, run counts as the
// stricter one: each of its requests becomes a job, so each is admitted by itself. A
// path that can't be read, or is too long, counts as run, never as unguarded.
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

// pathOnly returns a :path without query and fragment. It is not ok if that is too long;
// raw is its beginning then.
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

// unescape decodes percent escapes once, as uvicorn does: an escape that is not valid
// stays as it is. In a query, plus is a space.
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
