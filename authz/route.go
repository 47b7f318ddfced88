package authz

import "strings"

// maxPath is the length in bytes of the longest path, and of the longest query, that is
// read. No browser or server takes a longer one.
const maxPath = 8 << 10

// pathOnly returns a :path without query and fragment. It is not ok if that is too long;
// raw is its beginning then.
func pathOnly(path string) (raw string, ok bool) {
	head := path[:min(len(path), maxPath+1)]
	if i := strings.IndexAny(head, "?#"); i >= 0 {
		head = head[:i]
	}
	return head, len(head) <= maxPath
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
