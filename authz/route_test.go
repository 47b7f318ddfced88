package authz

import (
	"strings"
	"testing"
)

func TestClassify(t *testing.T) {
	tests := map[string]struct {
		extension, path string
		want            Policy
	}{
		"extension run":              {"run", "/whatever", PolicyRun},
		"extension assistant":        {"assistant", "/run", PolicyAssistant},
		"extension we don't know":    {"runn", "/run", PolicyUnknown},
		"extension in other case":    {"Run", "/run", PolicyUnknown},
		"extension none":             {"none", "/run", PolicyUnknown},
		"empty extension is absent":  {"", "/assistant", PolicyAssistant},
		"run":                        {"", "/run", PolicyRun},
		"below":                      {"", "/run/x/y", PolicyRun},
		"query":                      {"", "/run?x=/assistant", PolicyRun},
		"query with path":            {"", "/ping?/run", PolicyNone},
		"fragment":                   {"", "/run#x", PolicyRun},
		"trailing slash":             {"", "/run/", PolicyRun},
		"double slash":               {"", "//run", PolicyRun},
		"escaped letter":             {"", "/r%75n", PolicyRun},
		"escaped in digits":          {"", "/ass%69stant", PolicyAssistant},
		"escaped in upper case":      {"", "/ass%69STANT", PolicyNone},
		"escaped below":              {"", "/ru%6e/x", PolicyRun},
		"escaped slash":              {"", "/run%2fx", PolicyRun},
		"escaped slash first":        {"", "/%2frun", PolicyRun},
		"escaped twice":              {"", "/r%2575n", PolicyNone},
		"dot":                        {"", "/./run", PolicyRun},
		"dots":                       {"", "/x/../run", PolicyRun},
		"dots above the root":        {"", "/../../run", PolicyRun},
		"escaped dots":               {"", "/x/%2e%2e/run", PolicyRun},
		"dots with parameters":       {"", "/a/..;/run", PolicyRun},
		"dots away from run":         {"", "/run/../ping", PolicyRun},
		"dots at the end":            {"", "/run/..", PolicyRun},
		"dots and slash at the end":  {"", "/run/../", PolicyRun},
		"escaped dots away from run": {"", "/run/%2e%2e/ping", PolicyRun},
		"escaped slash and dots":     {"", "/run%2f..%2fping", PolicyRun},
		"twice away from run":        {"", "/run/x/../../ping", PolicyRun},
		"parameters away from run":   {"", "/run/..;/ping", PolicyRun},
		"dots before, away from run": {"", "/.././run/../ping", PolicyRun},
		"away from the assistant":    {"", "/assistant/../ping", PolicyAssistant},
		"from the assistant to run":  {"", "/assistant/../run", PolicyRun},
		"from run to the assistant":  {"", "/run/../assistant", PolicyRun},
		"away from others":           {"", "/ping/../x", PolicyNone},
		"others below run's name":    {"", "/x/run/../ping", PolicyNone},
		"to run and away from it":    {"", "/x/../run/..", PolicyNone},
		"dots that go back one only": {"", "/x/y/../run", PolicyNone},
		"dots within run":            {"", "/run/x/../y", PolicyRun},
		"dots back into run":         {"", "/run/x/../../run", PolicyRun},
		"parameters":                 {"", "/run;a=1", PolicyRun},
		"escaped parameters":         {"", "/run%3Ba=1/x", PolicyRun},
		"newline":                    {"", "/run%0a", PolicyRun},
		"newline in upper case":      {"", "/assistant%0A", PolicyAssistant},
		"newline and slash":          {"", "/run%0a/", PolicyRun},
		"other control characters":   {"", "/run%0d%0a%7f", PolicyRun},
		"a raw newline":              {"", "/run\n", PolicyRun},
		"NUL can't be classified":    {"", "/ping%00", PolicyRun},
		"NUL at the beginning":       {"", "%00/ping", PolicyRun},
		"missing":                    {"", "", PolicyRun},
		"only a query":               {"", "?x", PolicyRun},
		"no leading slash":           {"", "run", PolicyRun},
		"invalid escape is literal":  {"", "/run%zz", PolicyNone},
		"cut escape is literal":      {"", "/run%7", PolicyNone},
		"plus is not a space":        {"", "/+run", PolicyNone},
		"a space is not cut":         {"", "/run%20", PolicyNone},
		"case counts":                {"", "/RUN", PolicyNone},
		"longer":                     {"", "/runner", PolicyNone},
		"not first":                  {"", "/ping/run", PolicyNone},
		"root":                       {"", "/", PolicyNone},
		"asterisk":                   {"", "*", PolicyNone},
		"invalid UTF-8":              {"", "/run\xff", PolicyNone},
		"the longest":                {"", "/" + strings.Repeat("x", maxPath-1), PolicyNone},
		"too long to be read":        {"", "/" + strings.Repeat("x", maxPath), PolicyRun},
		"too long, run at its end":   {"", strings.Repeat("/.", maxPath) + "/run", PolicyRun},
		"the query does not count":   {"", "/ping?" + strings.Repeat("x", 1<<20), PolicyNone},
		"too long, named by Envoy":   {"assistant", strings.Repeat("/.", maxPath), PolicyAssistant},
		"policies that aren't paths": {"", "/unknown", PolicyNone},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := classify(tt.extension, tt.path); got != tt.want {
				t.Errorf("classify(%q, %q) = %s, want %s", tt.extension, tt.path, got, tt.want)
			}
		})
	}
}

func FuzzClassify(f *testing.F) {
	for _, path := range []string{"/run", "/r%75n", "//run;x", "/a/..;/run%0a", "\xff%", "?", "/..", "/../ping", "/%2e%2e/ping", "/x/../../ping", "/..;/ping"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got := classifyPath(path)
		if got != PolicyRun && got != PolicyAssistant && got != PolicyNone {
			t.Fatalf("classifyPath(%q) = %q", path, got)
		}
		if !strings.HasPrefix(path, "/") {
			return
		}
		// With a detour before it, the path counts with dots resolved alone.
		if detour := classifyPath("/x/.." + path); detour != got && (detour == PolicyRun || !strings.Contains(unescape(path, false), "..")) {
			t.Fatalf("classifyPath(%q) = %s, but %s after a detour", path, got, detour)
		}
		if below := classifyPath("/run" + path); below != PolicyRun {
			t.Fatalf("classifyPath(%q) = %s, below /run", "/run"+path, below)
		}
		if below := classifyPath("/assistant" + path); below == PolicyNone {
			t.Fatalf("classifyPath(%q) = %s, below /assistant", "/assistant"+path, below)
		}
	})
}
