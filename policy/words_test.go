package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestWords(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ content, want string }{
		"the preset": {string(preset().File(true).YAML()), `
run: /run, /run/…; queue default; each request adds a job
run: each client IP: plain 10 at once, then 6 a minute; premium 30 at once, then 18 a minute
run: each user: plain 10 at once, then 6 a minute; premium 30 at once, then 18 a minute
assistant: /assistant, /assistant/…; queue default; requests add no jobs
assistant: each client IP: plain 30 at once, then 30 a minute; premium 90 at once, then 90 a minute
assistant: each user: plain 30 at once, then 30 a minute; premium 90 at once, then 90 a minute
queue default: full when 40 jobs wait, or the oldest has waited for 10m
`},
		"everything": {everything, `
run: POST /run, POST /run/…; queue default; each request adds a job
run: each client IP: plain 10 at once, then 6 a minute; premium 30 at once, then 18 a minute; batch 25 at once, then 15 a minute
run: each user: plain 10 at once, then 6 a minute; premium 30 at once, then 18 a minute; batch 25 at once, then 15 a minute
run: each user (day): plain 200 at once, then 200 a day; premium 600 at once, then 600 a day; batch 500 at once, then 500 a day
run: all callers together (total): 300 at once, then 5 a second
run: shadow mode of the limits: what they would deny is only recorded
named-by_envoy2: only requests whose route in Envoy names it; queue two; requests add no jobs
named-by_envoy2: no buckets: only the queue limits it
named-by_envoy2: shadow mode of the queue: what it would deny is only recorded
off: only requests whose route in Envoy names it; no queue
off: all callers together: plain 1 at once, then 1 an hour; premium 3 at once, then 3 an hour; batch 2 at once, then 2.5 an hour
off: shadow mode: limits and queue deny nothing, and record what they would deny
queue default: full when 40 jobs wait, or the oldest has waited for 10m
queue default: for callers of other tiers than premium, full when 32 jobs wait, or the oldest has waited for 8m
queue default: from 39 jobs on nobody is admitted: one job more is nobody's share
queue default: a caller has at most 1 × the free places; alone 20 jobs
queue default: for callers of other tiers, alone 16 jobs
queue two: full when the oldest has waited for 1m30s
queue two: shadow mode: what it would deny is only recorded
callers: 192.0.2.0/24: exempt from buckets; the queue and its shares count
callers: 2001:db8::1: denied
callers: ::/0: tier plain
callers: user "mallory": denied
callers: user "7": tier batch
`},
		"what may be a mistake": {"queues: {q: {}, unused: {max_pending: 1000000}}\npolicies: {a: {match: [/], queue: q, buckets: [{per: user, burst: 1000000, rate: 1/s}]}}", `
a: /…; queue q; requests add no jobs
a: each user: 1,000,000 at once, then 1 a second
WARNING: policy a limits users only: a caller who names no user has no limit
WARNING: queue q: is never full: it has neither max_pending nor max_age
queue unused: full when 1,000,000 jobs wait
WARNING: queue unused: no policy uses it
`},
	} {
		got := "\n" + strings.Join(parse(t, tt.content).Words(), "\n") + "\n"
		if got != tt.want {
			t.Errorf("%s: got%swant%s", name, got, tt.want)
		}
	}
}

func TestWordsOfManyCallers(t *testing.T) {
	t.Parallel()
	f := parse(t, string(manyCallers(1103)))
	words := f.Words()
	if last := words[len(words)-1]; last != "callers: and 1,003 more" || !slices.Contains(words, `callers: user "user-99": exempt from buckets; the queue and its shares count`) {
		t.Errorf("got %q at the end", last)
	}
}

// Numbers have a comma between thousands.
func TestWordsGroupThousands(t *testing.T) {
	t.Parallel()
	for factor, want := range map[float64]string{1: "1,234 at once, then 5,678 a day", 1.5: "1,851 at once, then 8,517 a day", 1000: "1,234,000 at once, then 5,678,000 a day"} {
		f := parse(t, fmt.Sprintf("tiers: {x: %v}\npolicies: {a: {buckets: [{per: ip, burst: 1234, rate: 5678/d}]}}", factor))
		if words := strings.Join(f.Words(), "\n"); !strings.Contains(words, "x "+want) {
			t.Errorf("%v: got %s", factor, words)
		}
	}
}
