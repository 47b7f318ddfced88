package backpressure

import "testing"

func TestKeys(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		queuedKey("training"): "saq:training:queued",
		activeKey("training"): "saq:training:active",
		statsKey("training"):  "saq:training:stats",
		windowKey("training"): "refrakt:gate:admissions:training",

		incompleteKey("training"):  "saq:training:incomplete",
		jobPrefix("training"):      "saq:job:training:",
		jobPattern("training"):     "saq:job:training:*",
		jobPattern(`a*b?[c]\d`):    `saq:job:a\*b\?\[c\]\\d:*`,
		ledgerKey("training"):      "refrakt:gate:jobs:training",
		leaseKey("training"):       "refrakt:gate:jobs:training:lease",
		sinceKey("training"):       "refrakt:gate:jobs:training:since",
		batchKey("training", "me"): "refrakt:gate:jobs:training:batch:me",
	} {
		if got != want {
			t.Errorf("key %q, want %q", got, want)
		}
	}
}
