package policy

import (
	"net/http"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// writtenPattern is a pattern and where it is in the file.
type writtenPattern struct {
	text string
	node *yaml.Node
}

// pattern reads a pattern. What is wrong with it alone is taken down here, except for
// wildcards, which the mux checks.
func (p *parser) pattern(n *yaml.Node) (string, bool) {
	text, ok := p.text(n, "match")
	if !ok {
		return "", false
	}
	if wrong := wrongPattern(text); wrong != "" {
		p.add(n, "match: %s: %s", quote(text), wrong)
		return "", false
	}
	p.patterns = append(p.patterns, writtenPattern{text, n})
	return text, true
}

// wrongPattern says why a pattern is not one, or why no request can match it.
func wrongPattern(text string) string {
	if len(text) > maxPattern {
		return "the pattern has more than " + group(maxPattern) + " bytes"
	}
	method, path, hasMethod := strings.Cut(text, " ")
	if !hasMethod {
		method, path = "", text
	}
	switch {
	case strings.ContainsFunc(text, isControl):
		return "control characters are not allowed"
	case hasMethod && method == "":
		return "begins with a space"
	case strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" && !strings.Contains(method, "/"):
		return "what stands before a space is a method in upper-case letters, as in POST /path"
	case strings.Contains(method, "/") || strings.Contains(path, " "):
		return "there is at most one space, between method and path; in a path write %20"
	case path == "" || path[0] != '/':
		host, _, _ := strings.Cut(path, "/")
		if strings.Contains(path, "/") {
			return "a pattern has no host (" + quote(host) + "); Envoy's virtual hosts choose by host"
		}
		return "the path does not begin with /"
	case strings.ContainsAny(path, "?#"):
		return "query and fragment of a request are not matched; in a path write %3F or %23"
	}
	for segment := range strings.SplitSeq(strings.TrimSuffix(path[1:], "/"), "/") {
		decoded := Unescape(segment)
		switch {
		case path == "/":
		case segment == "":
			return "can't match: empty segments (//) of a request are dropped"
		case decoded == "." || decoded == "..":
			return "can't match: segments . and .. of a request are resolved"
		case strings.Contains(decoded, ";"):
			return "can't match: parameters (;…) of a request are cut off"
		case strings.Contains(decoded, "/"):
			return "can't match: an escaped slash (%2F) of a request is a slash"
		case strings.Contains(segment, "*"):
			return "* would stand for itself; write {x} for one segment, a slash at the end for all paths below, or %2A for the character"
		case segment[0] == ':':
			return "a segment that begins with : would stand for itself; write {" + strings.TrimLeft(segment, ":") + "}, or %3A for the character"
		case strings.ContainsFunc(decoded, isControl):
			return "control characters are not allowed"
		}
	}
	return ""
}

// conflicts takes down patterns that the mux refuses: wrong wildcards, and pairs of which
// neither is more specific.
func (p *parser) conflicts() {
	if len(p.patterns) > maxPatterns {
		p.add(p.patterns[maxPatterns].node, "match: there are %s patterns in the file, more than %s", group(int64(len(p.patterns))), group(maxPatterns))
		return
	}
	mux := http.NewServeMux()
	at := make(map[string]*yaml.Node, len(p.patterns))
	for _, pattern := range p.patterns {
		if first := at[pattern.text]; first != nil {
			p.add(pattern.node, "match: %s is already in line %d", quote(pattern.text), first.Line)
			continue
		}
		at[pattern.text] = pattern.node
		if err := register(mux, pattern.text, unguarded); err != nil {
			p.refused(pattern, err.Error(), at)
		}
	}
}

// refused takes down what the mux says about a pattern. It speaks of places in the code:
//
//	pattern "/a/{x}" (registered at …) conflicts with pattern "/{y}/b" (registered at …):
//	/a/{x} and /{y}/b both match some paths, like "/a/b". …
//	parsing "/{x": at offset 1: bad wildcard segment (must end with '}')
func (p *parser) refused(pattern writtenPattern, message string, at map[string]*yaml.Node) {
	_, conflict, ok := strings.Cut(message, ") conflicts with pattern ")
	if !ok {
		if _, after, ok := strings.Cut(message, "at offset "); ok {
			_, message, _ = strings.Cut(after, ": ")
		}
		if strings.HasPrefix(message, "bad wildcard segment") {
			message = "braces enclose a whole segment, as in /models/{name}/generate"
		}
		p.add(pattern.node, "match: %s: %s", quote(pattern.text), message)
		return
	}
	quoted, _ := strconv.QuotedPrefix(conflict)
	other, _ := strconv.Unquote(quoted)
	line := 0
	if n := at[other]; n != nil {
		line = n.Line
	}
	why := "both match some paths, and neither is more specific; name these paths in a pattern of their own or change one of the two"
	if strings.Contains(conflict, "matches the same requests as") {
		why = "both match the same requests"
	}
	p.add(pattern.node, "match: %s conflicts with %s in line %d: %s", quote(pattern.text), quote(other), line, why)
}
