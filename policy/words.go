package policy

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxCallerWords is how many exceptions are put into words. The others are counted.
const maxCallerWords = 100

// Warning begins the lines of [File.Words] about what is allowed, but may not be meant.
const Warning = "WARNING: "

// Words says what the file means, one line for each part of it. Warnings begin with
// [Warning].
func (f *File) Words() []string {
	var w []string
	say := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }
	for i := range f.Policies {
		f.Policies[i].words(f.Tiers, say)
	}
	for _, q := range f.Queues {
		q.words(say)
		if !slices.ContainsFunc(f.Policies, func(p Policy) bool { return p.Queue == q.Name }) {
			say(Warning+"queue %s: no policy uses it", q.Name)
		} else if q.FairShare > 0 && !slices.ContainsFunc(f.Policies, func(p Policy) bool { return p.Queue == q.Name && p.BecomesJob }) {
			say(Warning+"queue %s: fair_share has no effect: no policy with becomes_job uses the queue", q.Name)
		}
	}
	for i, c := range f.Callers {
		if i == maxCallerWords {
			say("callers: and %s more", group(int64(len(f.Callers)-i)))
			break
		}
		c.words(say)
	}
	return w
}

func (p *Policy) words(tiers []Tier, say func(string, ...any)) {
	match := "only requests whose route in Envoy names it"
	if len(p.Match) > 0 {
		patterns := make([]string, len(p.Match))
		for i, m := range p.Match {
			patterns[i] = patternWords(m)
		}
		match = strings.Join(patterns, ", ")
	}
	switch {
	case p.Queue == "":
		say("%s: %s; no queue", p.Name, match)
	case p.BecomesJob:
		say("%s: %s; queue %s; each request adds a job", p.Name, match, p.Queue)
	default:
		say("%s: %s; queue %s; requests add no jobs", p.Name, match, p.Queue)
	}
	for _, b := range p.Buckets {
		name := ""
		if b.Name != "" {
			name = " (" + b.Name + ")"
		}
		say("%s: %s%s: %s", p.Name, perWords[b.Per], name, b.words(tiers))
	}
	switch {
	case len(p.Buckets) == 0:
		say("%s: no buckets: only the queue limits it", p.Name)
	case !slices.ContainsFunc(p.Buckets, func(b Bucket) bool { return b.Per != PerUser }):
		say(Warning+"policy %s limits users only: a caller who names no user has no limit", p.Name)
	}
	if p.Shadow.Queue && !p.Shadow.Limits && p.Queue == "" {
		say(Warning+"policy %s: shadow of the queue has no effect: the policy has no queue", p.Name)
	}
	switch p.Shadow {
	case Shadow{Limits: true, Queue: true}:
		say("%s: shadow mode: limits and queue deny nothing, and record what they would deny", p.Name)
	case Shadow{Limits: true}:
		say("%s: shadow mode of the limits: what they would deny is only recorded", p.Name)
	case Shadow{Queue: true}:
		say("%s: shadow mode of the queue: what it would deny is only recorded", p.Name)
	}
}

var perWords = map[Per]string{PerIP: "each client IP", PerUser: "each user", PerAll: "all callers together"}

// patternWords marks a pattern that has all paths below it: /run/…
func patternWords(m string) string {
	if strings.HasSuffix(m, "/") {
		return m + "…"
	}
	return m
}

func (b Bucket) words(tiers []Tier) string {
	plain := limitWords(b, 1)
	if !b.Tiered || len(tiers) == 0 {
		return plain
	}
	words := []string{Plain + " " + plain}
	for _, t := range tiers {
		words = append(words, t.Name+" "+limitWords(b, t.Factor))
	}
	return strings.Join(words, "; ")
}

func limitWords(b Bucket, factor float64) string {
	burst := math.Floor(float64(b.Burst)*factor + rounding)
	count := math.Round(float64(b.Rate.Count)*factor*1000) / 1000
	return fmt.Sprintf("%s at once, then %s %s", group(int64(burst)), grouped(count), unitWords[b.Rate.Unit])
}

var unitWords = map[time.Duration]string{time.Second: "a second", time.Minute: "a minute", time.Hour: "an hour", day: "a day"}

// grouped writes a number with a comma between thousands and up to three decimals.
func grouped(f float64) string {
	whole, fraction := math.Modf(f)
	s := group(int64(whole))
	if fraction > 0 {
		s += strings.TrimPrefix(strconv.FormatFloat(math.Round(fraction*1000)/1000, 'f', -1, 64), "0")
	}
	return s
}

func (q Queue) words(say func(string, ...any)) {
	var full []string
	if q.MaxPending > 0 {
		full = append(full, fmt.Sprintf("%s jobs wait", group(int64(q.MaxPending))))
	}
	if q.MaxAge > 0 {
		full = append(full, fmt.Sprintf("the oldest has waited for %s", span(q.MaxAge)))
	}
	if len(full) == 0 {
		say(Warning+"queue %s: is never full: it has neither max_pending nor max_age", q.Name)
	} else {
		say("queue %s: full when %s", q.Name, strings.Join(full, ", or "))
	}
	if q.Reserve.Share > 0 {
		full = full[:0]
		if q.MaxPending > 0 {
			full = append(full, fmt.Sprintf("%s jobs wait", group(int64(q.Unreserved()))))
		}
		if q.MaxAge > 0 {
			full = append(full, fmt.Sprintf("the oldest has waited for %s", span(time.Duration(float64(q.MaxAge)*(1-q.Reserve.Share)).Round(time.Millisecond))))
		}
		say("queue %s: for callers of other tiers than %s, full when %s", q.Name, strings.Join(q.Reserve.Tiers, ", "), strings.Join(full, ", or "))
	}
	if q.FairShare > 0 {
		say("queue %s: from %s jobs on nobody is admitted: one job more is nobody's share", q.Name, group(int64(q.MaxPending)-int64(math.Ceil(1/q.FairShare-rounding))))
		say("queue %s: a caller has at most %s × the free places; alone %s jobs", q.Name, float(q.FairShare), group(int64(q.alone(q.MaxPending))))
		if q.Reserve.Share > 0 {
			say("queue %s: for callers of other tiers, alone %s jobs", q.Name, group(int64(q.alone(q.Unreserved()))))
		}
	}
	if q.Shadow {
		say("queue %s: shadow mode: what it would deny is only recorded", q.Name)
	}
}

// alone is how many jobs a caller that sees so many places can have while no other caller
// has any.
func (q Queue) alone(places int) int {
	return int(math.Floor(q.FairShare/(1+q.FairShare)*float64(places) + rounding))
}

func (c Caller) words(say func(string, ...any)) {
	who := "user " + strconv.Quote(c.User)
	if c.User == "" {
		who = c.IP.String()
		if c.IP.IsSingleIP() {
			who = c.IP.Addr().String()
		}
	}
	switch {
	case c.Then.Deny:
		say("callers: %s: denied", who)
	case c.Then.Exempt:
		say("callers: %s: exempt from buckets; the queue and its shares count", who)
	default:
		say("callers: %s: tier %s", who, c.Then.Tier)
	}
}
