package policy

import "testing"

func TestShadowList(t *testing.T) {
	for text, want := range map[string]string{
		"true": "true", "YES": "true", "0": "false", "off": "false", "run": "run", "assistant": "assistant", "run, assistant": "true",
		"": "error", "2": "error", "run,true": "error", "RUN": "error",
	} {
		var s ShadowList
		got := "error"
		if err := s.UnmarshalText([]byte(text)); err == nil {
			got = s.String()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
