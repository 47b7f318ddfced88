package policy

import "strings"

// MaxPath is the length in bytes of the longest path that is read. No browser or server
// takes a longer one.
const MaxPath = 8 << 10

// PathOnly returns a :path without query and fragment. It is not ok if that is longer than
// [MaxPath]; raw is its beginning then.
func PathOnly(path string) (raw string, ok bool) {
	head := path[:min(len(path), MaxPath+1)]
	if i := strings.IndexAny(head, "?#"); i >= 0 {
		head = head[:i]
	}
	return head, len(head) <= MaxPath
}

// Unescape decodes percent escapes once, as uvicorn does: an escape that is not valid
// stays as it is.
func Unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
			out = append(out, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
		} else {
			out = append(out, s[i])
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
