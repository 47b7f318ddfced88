package authz

import (
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*setup)
		want   string // how the mistake begins; empty: there is none
	}{
		"as in the tests":         {func(*setup) {}, ""},
		"a limit's failure mode":  {func(c *setup) { c.LimitFailureMode = "open" }, "RATE_LIMIT_FAILURE_MODE: "},
		"the queue has no local":  {func(c *setup) { c.QueueFailureMode = FailLocal }, "QUEUE_FAILURE_MODE: "},
		"the form of the headers": {func(c *setup) { c.Headers = "" }, "RATE_LIMIT_HEADERS: "},
		"no header":               {func(c *setup) { c.ClientIPHeader = "" }, ""},
		"every character it may":  {func(c *setup) { c.ClientIPHeader = "azAZ09!#$%&'*+-.^_`|~" }, ""},
		"no time":                 {func(c *setup) { c.RedisTimeout = time.Millisecond - 1 }, "REDIS_TIMEOUT: "},
		"too much time":           {func(c *setup) { c.RedisTimeout = time.Minute + 1 }, "REDIS_TIMEOUT: "},
		"no Checks":               {func(c *setup) { c.MaxChecks = 0 }, "MAX_CONCURRENT_CHECKS: "},
		"too many Checks":         {func(c *setup) { c.MaxChecks = 1_000_001 }, "MAX_CONCURRENT_CHECKS: "},
	} {
		cfg := config(t)
		tt.change(&cfg)
		errs := cfg.Config.Validate()
		if tt.want == "" && len(errs) > 0 || tt.want != "" && (len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, errs, tt.want)
		}
	}
	// Those next to the letters and digits, and others that no token holds.
	for _, c := range "`{@[/: \t\x00()<>,;\\\"?={}ä" {
		cfg := config(t)
		cfg.ClientIPHeader = "x" + string(c)
		if errs := cfg.Config.Validate(); (len(errs) == 0) != (c == '`') {
			t.Errorf("a header with %q: %v", c, errs)
		}
	}
}
