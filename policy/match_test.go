package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/policy"
)

// The preset guards /run and /assistant, and all paths below them.
func TestMatchPreset(t *testing.T) {
	t.Parallel()
	const run, assistant, none = "run", "assistant", ""
	set := policy.Compile(preset().File(true))
	for name, tt := range map[string]struct{ path, want string }{
		"run":                        {"/run", run},
		"below":                      {"/run/x/y", run},
		"query":                      {"/run?x=/assistant", run},
		"query with path":            {"/ping?/run", none},
		"fragment":                   {"/run#x", run},
		"trailing slash":             {"/run/", run},
		"double slash":               {"//run", run},
		"double slash at the end":    {"/run//", run},
		"escaped letter":             {"/r%75n", run},
		"escaped in digits":          {"/ass%69stant", assistant},
		"escaped in upper case":      {"/ass%69STANT", none},
		"escaped below":              {"/ru%6e/x", run},
		"escaped slash":              {"/run%2fx", run},
		"escaped slash first":        {"/%2frun", run},
		"escaped twice":              {"/r%2575n", none},
		"dot":                        {"/./run", run},
		"dots":                       {"/x/../run", run},
		"dots above the root":        {"/../../run", run},
		"escaped dots":               {"/x/%2e%2e/run", run},
		"dots with parameters":       {"/a/..;/run", run},
		"dots away from run":         {"/run/../ping", run},
		"dots at the end":            {"/run/..", run},
		"dots and slash at the end":  {"/run/../", run},
		"escaped dots away from run": {"/run/%2e%2e/ping", run},
		"escaped slash and dots":     {"/run%2f..%2fping", run},
		"twice away from run":        {"/run/x/../../ping", run},
		"parameters away from run":   {"/run/..;/ping", run},
		"dots before, away from run": {"/.././run/../ping", run},
		"away from the assistant":    {"/assistant/../ping", assistant},
		"from the assistant to run":  {"/assistant/../run", run},
		"from run to the assistant":  {"/run/../assistant", run},
		"away from others":           {"/ping/../x", none},
		"others below run's name":    {"/x/run/../ping", none},
		"to run and away from it":    {"/x/../run/..", none},
		"dots that go back one only": {"/x/y/../run", none},
		"dots within run":            {"/run/x/../y", run},
		"dots back into run":         {"/run/x/../../run", run},
		"parameters":                 {"/run;a=1", run},
		"escaped parameters":         {"/run%3Ba=1/x", run},
		"newline":                    {"/run%0a", run},
		"newline in upper case":      {"/assistant%0A", assistant},
		"newline and slash":          {"/run%0a/", run},
		"other control characters":   {"/run%0d%0a%7f", run},
		"a raw newline":              {"/run\n", run},
		"NUL can't be classified":    {"/ping%00", run},
		"NUL at the beginning":       {"%00/ping", run},
		"missing":                    {"", run},
		"only a query":               {"?x", run},
		"no leading slash":           {"run", run},
		"invalid escape is literal":  {"/run%zz", none},
		"cut escape is literal":      {"/run%7", none},
		"plus is not a space":        {"/+run", none},
		"a space is not cut":         {"/run%20", none},
		"case counts":                {"/RUN", none},
		"longer":                     {"/runner", none},
		"not first":                  {"/ping/run", none},
		"root":                       {"/", none},
		"only slashes":               {"///", none},
		"asterisk":                   {"*", none},
		"invalid UTF-8":              {"/run\xff", none},
		"the longest":                {"/" + strings.Repeat("x", policy.MaxPath-1), none},
		"too long to be read":        {"/" + strings.Repeat("x", policy.MaxPath), run},
		"too long, run at its end":   {strings.Repeat("/.", policy.MaxPath) + "/run", run},
		"the query does not count":   {"/ping?" + strings.Repeat("x", 1<<20), none},
	} {
		for _, method := range []string{"POST", "GET", "patch", ""} {
			if got := nameOf(set.Match(method, tt.path)); got != tt.want {
				t.Errorf("%s: Match(%q, %.60q) = %q, want %q", name, method, tt.path, got, tt.want)
			}
		}
	}
}

func nameOf(p *policy.Policy) string {
	if p == nil {
		return ""
	}
	return p.Name
}

// patterns returns a set with one policy for each list of patterns: a, b, c…
func patterns(t *testing.T, lists ...[]string) *policy.Set {
	t.Helper()
	f := &policy.File{}
	for i, list := range lists {
		f.Policies = append(f.Policies, policy.Policy{
			Name: string(rune('a' + i)), Match: list,
			Buckets: []policy.Bucket{{Per: policy.PerIP, Burst: 1, Rate: policy.Rate{Count: 1, Unit: 1e9}}},
		})
	}
	parsed, mistakes := policy.Parse(f.YAML())
	if len(mistakes) > 0 {
		t.Fatalf("%v\n%s", mistakes, f.YAML())
	}
	return policy.Compile(parsed)
}

func TestMatchPatterns(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		lists  [][]string
		method string
		// want has the policy of each path.
		want map[string]string
	}{
		"a path is matched with and without a final slash": {
			[][]string{{"/chat"}}, "GET",
			map[string]string{"/chat": "a", "/chat/": "a", "/chat//": "a", "/chat/x": "", "/": "", "/chat/..": "", "/x/../chat/": "a"},
		},
		"so is a path that is written with the slash": {
			[][]string{{"/chat/"}}, "GET",
			map[string]string{"/chat": "a", "/chat/": "a", "/chat/x": "a", "/chatter": "", "/chat%0a": "a", "/..;/chat": "a"},
		},
		"the path itself is more specific than those below": {
			[][]string{{"/api/"}, {"/api/chat"}}, "GET",
			map[string]string{"/api": "a", "/api/chat": "b", "/api/chat/": "b", "/api/chat/x": "a", "/api/x/../chat": "a"},
		},
		"the path below with a final slash": {
			[][]string{{"/"}, {"/chat/"}}, "GET",
			map[string]string{"/": "a", "": "a", "/x": "a", "/chat": "b", "/chat/": "b", "/chat/x/": "b"},
		},
		"only this path": {
			[][]string{{"/chat/{$}"}}, "GET",
			map[string]string{"/chat": "a", "/chat/": "a", "/chat/x": ""},
		},
		"only the root": {
			[][]string{{"/{$}"}}, "GET",
			map[string]string{"/": "a", "//": "a", "/.": "a", "/..": "a", "/x/..": "a", "/x": ""},
		},
		"a segment": {
			[][]string{{"/models/{model}/generate"}, {"/models/{model}"}}, "POST",
			map[string]string{
				"/models/small/generate": "a", "/models/small": "b", "/models": "", "/models/small/": "b", "/models/%2e/generate": "a", "/models/%2E%2E/generate": "a", "/models/./generate": "b", "/models/a%2fb/generate": "a",
				"/models/%2e%2e/generate": "a", "/models/a%20b/generate": "a", "/models//generate": "b", "/models/x/../generate": "b",
				"/models/x;v=1/generate": "a", "/models/\xff/generate": "a", "/models/%/generate": "a",
			},
		},
		"all that follows": {
			[][]string{{"/files/{path...}"}}, "GET",
			map[string]string{"/files": "a", "/files/": "a", "/files/a/b": "a", "/file": ""},
		},
		"escapes of the pattern": {
			[][]string{{"/a%20b"}, {"/100%25"}, {"/%C3%BC"}}, "GET",
			map[string]string{"/a%20b": "a", "/a b": "a", "/100%25": "b", "/100%": "b", "/ü": "c", "/%c3%bc": "c"},
		},
		"a method": {
			[][]string{{"POST /run"}}, "POST", map[string]string{"/run": "a", "/run/": "a", "": "a"},
		},
		"a method in lower case": {
			[][]string{{"POST /run"}}, "post", map[string]string{"/run": "a"},
		},
		"another method": {
			[][]string{{"POST /run"}}, "GET", map[string]string{"/run": "", "/run/": "", "": "a"},
		},
		"HEAD falls under GET": {
			[][]string{{"GET /run"}}, "HEAD", map[string]string{"/run": "a", "/run/": "a"},
		},
		"HEAD of its own": {
			[][]string{{"GET /run"}, {"HEAD /run"}}, "HEAD", map[string]string{"/run": "b"},
		},
		"a method and a final slash": {
			[][]string{{"/"}, {"POST /run/"}}, "POST", map[string]string{"/run": "b", "/run/": "b", "/run/x": "b", "/x": "a"},
		},
		"CONNECT": {
			[][]string{{"CONNECT /run/"}, {"/x"}}, "CONNECT", map[string]string{"/run": "a", "/run/x": "a", "/x/": "b", "/y": ""},
		},
		"a path that can't be read falls under the first policy with patterns": {
			[][]string{{}, {"/x"}, {"/"}}, "GET", map[string]string{"": "b", "/%00": "b", "/y": "c"},
		},
		"of several readings, the first in the file counts": {
			[][]string{{"/a"}, {"/a/"}, {"/b/"}}, "GET",
			map[string]string{"/b/../a": "a", "/a/../b": "b", "/b/x/..;/../a": "a", "/b/a": "c"},
		},
		"segments that other readings do not have": {
			[][]string{{"/a/{x}"}}, "GET",
			map[string]string{"/a/;b": "a", "/a/%0a": "a", "/a/.": "", "/a/;b/c": "a"},
		},
		"dots where the pattern has a final slash": {
			[][]string{{"/{x}/{y}/"}}, "GET",
			map[string]string{"/a/..": "a", "/a/../": "a", "/a/b": "a", "/a": ""},
		},
		"without patterns no path is guarded": {
			[][]string{{}}, "GET", map[string]string{"": "", "/": "", "/%00": ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := patterns(t, tt.lists...)
			for path, want := range tt.want {
				if got := nameOf(set.Match(tt.method, path)); got != want {
					t.Errorf("Match(%q, %q) = %q, want %q", tt.method, path, got, want)
				}
			}
		})
	}
}

// The usual request must not cost an allocation.
func TestMatchAllocates(t *testing.T) {
	set := policy.Compile(preset().File(true))
	if n := testing.AllocsPerRun(1000, func() { set.Match("POST", "/run?user_id=ann") }); n > 0 {
		t.Errorf("Match allocates %v times", n)
	}
	name := strings.Clone("run")
	if n := testing.AllocsPerRun(1000, func() { set.Named(name) }); n > 0 {
		t.Errorf("Named allocates %v times", n)
	}
}

// FuzzMatch compares the preset with a classification by the first segment, written
// without patterns.
func FuzzMatch(f *testing.F) {
	for _, path := range []string{"/run", "/r%75n", "//run;x", "/a/..;/run%0a", "\xff%", "?", "/..", "/../ping", "/%2e%2e/ping", "/x/../../ping", "/..;/ping", "*", "/;/run", "/run/..%0a/x", "/%00", "%2E/assistant", "/\n/run"} {
		f.Add("POST", path)
	}
	set := policy.Compile(preset().File(true))
	all := policy.Compile(&policy.File{Policies: []policy.Policy{{Name: "all", Match: []string{"/"}}}})
	segment := policy.Compile(&policy.File{Policies: []policy.Policy{{Name: "all", Match: []string{"/{x}", "/{x}/{y}", "/{x}/{y}/{z...}", "/{$}"}}}})
	f.Fuzz(func(t *testing.T, method, path string) {
		if got, want := nameOf(set.Match(method, path)), bySegment(path); got != want {
			t.Errorf("Match(%q, %q) = %q, want %q", method, path, got, want)
		}
		if all.Match(method, path) == nil {
			t.Errorf("Match(%q, %q): not guarded, though all paths are", method, path)
		}
		if segment.Match(method, path) == nil {
			t.Errorf("Match(%q, %q): not guarded, though all numbers of segments are", method, path)
		}
	})
}

// bySegment is the policy of a path by its first segment, with dots as they are and with
// dots resolved.
func bySegment(path string) string {
	raw, _, _ := strings.Cut(path, "?")
	raw, _, _ = strings.Cut(raw, "#")
	decoded := decode(raw)
	if raw == "" || len(raw) > policy.MaxPath || strings.Contains(decoded, "\x00") {
		return "run"
	}
	literal, resolved, depth := "", "", 0
	for segment := range strings.SplitSeq(decoded, "/") {
		segment, _, _ = strings.Cut(segment, ";")
		segment = strings.TrimRightFunc(segment, func(r rune) bool { return r < ' ' || r == 0x7f })
		switch segment {
		case "", ".":
		case "..":
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
	for _, name := range []string{"run", "assistant"} {
		if slices.Contains([]string{literal, resolved}, name) {
			return name
		}
	}
	return ""
}

// decode resolves percent escapes; those that are not valid stay.
func decode(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		hex := func(i int) int { return strings.IndexByte("0123456789abcdef", s[i]|0x20) }
		if s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
			b.WriteByte(byte(hex(i+1)<<4 | hex(i+2)))
			i += 2
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func isHex(c byte) bool { return strings.IndexByte("0123456789abcdefABCDEF", c) >= 0 }
