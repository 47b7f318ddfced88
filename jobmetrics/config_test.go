package jobmetrics

import "testing"

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sources Sources
		valid   bool
	}{
		"two":            {Sources{"api", "assistant"}, true},
		"none":           {nil, true},
		"as many as may": {make(Sources, maxSources), true},
		"too many":       {make(Sources, maxSources+1), false},
		"reserved":       {Sources{"api", "other"}, false},
		"reserved too":   {Sources{"unknown"}, false},
		"with a space":   {Sources{"a b"}, false},
	} {
		if errs := (Config{Sources: c.sources}).Validate(); (len(errs) == 0) != c.valid {
			t.Errorf("%s: %v, want valid: %v", name, errs, c.valid)
		}
	}
}

func TestSources(t *testing.T) {
	t.Parallel()
	var s Sources
	if err := s.UnmarshalText([]byte(" api, assistant,,api ")); err != nil || s.String() != "api,assistant" {
		t.Errorf("got %q, %v", s, err)
	}
	for source, want := range map[string]string{"api": "api", "cron": "other", "other": "other", "": "unknown"} {
		if got := s.label(source); got != want {
			t.Errorf("%q is counted as %q, want %q", source, got, want)
		}
	}
}
