package saq

import "testing"

func TestKeys(t *testing.T) {
	t.Parallel()
	q := New(Config{QueueName: "training"}, nil)
	for got, want := range map[string]string{
		q.queuedKey():     "saq:training:queued",
		q.activeKey():     "saq:training:active",
		q.statsKey():      "saq:training:stats",
		q.incompleteKey(): "saq:training:incomplete",
		q.windowKey():     "refrakt:gate:admissions:training",
		q.jobPattern():    "saq:job:training:*",
		New(Config{QueueName: `a*b?[c]\d`}, nil).jobPattern(): `saq:job:a\*b\?\[c]\\d:*`,
	} {
		if got != want {
			t.Errorf("key %q, want %q", got, want)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	for name, valid := range map[string]bool{
		"default": true, "training:gpu-1": true, "größe": true,
		"": false, "a b": false, "a\n": false, "a\x00": false, "a\xff": false, string(make([]byte, 257)): false,
	} {
		if errs := (Config{QueueName: name}).Validate(); (len(errs) == 0) != valid {
			t.Errorf("%q: %v, want valid: %v", name, errs, valid)
		}
	}
}
