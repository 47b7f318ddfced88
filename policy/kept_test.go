package policy

import "testing"

// TestNothingIsKept: the method and the path of a request may be memory that is used for another one.
func TestNothingIsKept(t *testing.T) {
	set := Compile(Environment{RunBurst: 1, RunPerMinute: 1, AssistantBurst: 1, AssistantPerMinute: 1}.File(false))
	for _, path := range []string{"/run", "/ping", "/x/../run%0a", "/run/%2f"} {
		set.Match("POST", path)
		q, _ := questions.Get().(*question)
		if q.request.Method != "" || q.url.Path != "" || q.url.RawPath != "" {
			t.Errorf("%s: %s %s %s is kept", path, q.request.Method, q.url.Path, q.url.RawPath)
		}
		questions.Put(q)
	}
}
