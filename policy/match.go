package policy

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Match returns the policy of a request, or nil if the request is not guarded. The path
// is the :path of the request, with its query.
//
// Servers read the same path in different ways. The request is guarded if any of these
// readings is, all decoded once and without empty segments and dots:
//
//  1. the segments as they are,
//  2. without parameters (;…) and control characters at the end of a segment, and without
//     the ".." that lead above the root,
//  3. the same, with all ".." resolved,
//  4. the second, where an escaped slash or dot (%2F, %2E) is text of its segment.
//
// If the readings fall under different policies, the one that comes first in the file
// counts. So it does for a path that can't be read.
func (s *Set) Match(method, path string) *Policy {
	raw, ok := PathOnly(path)
	if !ok || raw == "" {
		return s.first
	}
	method = strings.ToUpper(method)
	if isPlain(raw) {
		return s.lookup(method, raw, "").policy
	}
	decoded := Unescape(raw)
	if strings.IndexByte(decoded, 0) >= 0 {
		return s.first
	}
	readings := [][]string{segmentsAsTheyAre(decoded), segmentsCut(decoded), segmentsResolved(decoded)}
	if decoded != raw {
		readings = append(readings, segmentsApart(raw))
	}
	best := unguarded
	for i, segments := range readings {
		if i > 0 && slices.Equal(segments, readings[i-1]) {
			continue
		}
		if g := s.lookup(method, "/"+strings.Join(segments, "/"), escaped(segments)); g.index < best.index {
			best = g
		}
	}
	return best.policy
}

// guard is the handler of a pattern. It serves nothing: it says which policy the pattern
// belongs to.
type guard struct {
	index  int
	policy *Policy
}

func (*guard) ServeHTTP(http.ResponseWriter, *http.Request) {}

// unguarded comes after all policies.
var unguarded = &guard{index: math.MaxInt}

// lookup finds the policy of a path that has no empty segments and no dots. A final slash
// makes no difference: many servers serve both forms. rawPath is the path in escaped
// form; it may be empty if no segment is "..", which the mux would resolve.
func (s *Set) lookup(method, path, rawPath string) *guard {
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	q := questions.Get().(*question)
	defer func() {
		q.request.Method, q.url.Path, q.url.RawPath = "", "", "" // nothing of a request is kept
		questions.Put(q)
	}()
	q.request.Method = method
	q.url.Path, q.url.RawPath = path, rawPath
	h, _ := s.mux.Handler(&q.request)
	if g, ok := h.(*guard); ok {
		return g
	}
	// The mux redirects to the path with a final slash, or there is no such path.
	q.url.Path += "/"
	if rawPath != "" {
		q.url.RawPath += "/"
	}
	h, _ = s.mux.Handler(&q.request)
	if g, ok := h.(*guard); ok {
		return g
	}
	return unguarded
}

// question is what the mux is asked. Pooled, it costs nothing.
type question struct {
	request http.Request
	url     url.URL
}

var questions = sync.Pool{New: func() any {
	q := &question{}
	q.request.URL = &q.url
	return q
}}

// register adds a pattern to the mux. The error says what is wrong with the pattern.
func register(mux *http.ServeMux, pattern string, g *guard) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	mux.Handle(pattern, g)
	return nil
}

// plain has the bytes that all servers read in the same way.
var plain = func() (set [256]bool) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~!$&'()*+,=:@/") {
		set[c] = true
	}
	return set
}()

// isPlain says that a path has one reading only.
func isPlain(path string) bool {
	if path[0] != '/' {
		return false
	}
	for i := range len(path) {
		if !plain[path[i]] || path[i] == '/' && i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.') {
			return false
		}
	}
	return true
}

func segmentsAsTheyAre(path string) []string {
	var out []string
	for segment := range strings.SplitSeq(path, "/") {
		if segment != "" && segment != "." {
			out = append(out, segment)
		}
	}
	return out
}

// segmentsApart decodes each segment by itself, so that a segment may contain a slash, or
// be a dot.
func segmentsApart(path string) []string {
	var out []string
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." {
			continue
		}
		if segment = cut(Unescape(segment)); segment != "" {
			out = append(out, segment)
		}
	}
	return out
}

func segmentsCut(path string) []string {
	var out []string
	for segment := range strings.SplitSeq(path, "/") {
		segment = cut(segment)
		if segment == "" || segment == "." || segment == ".." && len(out) == 0 {
			continue
		}
		out = append(out, segment)
	}
	return out
}

func segmentsResolved(path string) []string {
	var out []string
	for segment := range strings.SplitSeq(path, "/") {
		switch segment = cut(segment); segment {
		case "", ".":
		case "..":
			out = out[:max(0, len(out)-1)]
		default:
			out = append(out, segment)
		}
	}
	return out
}

// cut returns a segment without its parameters. Starlette's patterns end in $, which also
// matches before a last newline: "/run\n" is served as /run.
func cut(segment string) string {
	segment, _, _ = strings.Cut(segment, ";")
	return strings.TrimRightFunc(segment, isControl)
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// escaped returns the path of segments in escaped form if the mux would read it in another
// way: if one of them is a dot or two, or contains a slash.
func escaped(segments []string) string {
	if !slices.ContainsFunc(segments, func(s string) bool { return s == "." || s == ".." || strings.Contains(s, "/") }) {
		return ""
	}
	var b strings.Builder
	for _, segment := range segments {
		b.WriteByte('/')
		if segment == "." || segment == ".." {
			b.WriteString(strings.Repeat("%2E", len(segment)))
		} else {
			b.WriteString(url.PathEscape(segment))
		}
	}
	return b.String()
}
