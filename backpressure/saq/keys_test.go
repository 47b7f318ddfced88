package saq

import "testing"

func TestKeys(t *testing.T) {
	t.Parallel()
	q := New("training", nil)
	for got, want := range map[string]string{
		q.queuedKey():                      "saq:training:queued",
		q.activeKey():                      "saq:training:active",
		q.statsKey():                       "saq:training:stats",
		q.incompleteKey():                  "saq:training:incomplete",
		q.windowKey():                      "refrakt:gate:admissions:training",
		q.jobPattern():                     "saq:job:training:*",
		New(`a*b?[c]\d`, nil).jobPattern(): `saq:job:a\*b\?\[c]\\d:*`,
	} {
		if got != want {
			t.Errorf("key %q, want %q", got, want)
		}
	}
}
