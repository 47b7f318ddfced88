package backpressure

import "testing"

func TestKeys(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		queuedKey("training"): "saq:training:queued",
		activeKey("training"): "saq:training:active",
		statsKey("training"):  "saq:training:stats",
		windowKey("training"): "refrakt:gate:admissions:training",
	} {
		if got != want {
			t.Errorf("key %q, want %q", got, want)
		}
	}
}
