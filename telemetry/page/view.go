package page

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// view is what the template fills in.
type view struct {
	Version    string
	Now        string
	Started    *Number
	Headlines  []headline // at least one
	Troubles   []shownTrouble
	Queues     []queueView
	Policies   []policyView
	InShadow   []string // checks of policies without a chart
	Switches   []Switch
	Reload     *Number // nil: no POLICY_FILE
	Reloaded   *Number
	Doubts     []doubt
	NotGuarded *Number // what refrakt_gate_guards_nothing says
	Words      []string
	Metrics    string
}

// headline says in words how the gate is.
type headline struct{ Level, Text string }

// The levels of headlines and queues are classes of the style sheet.
const (
	levelOK   = "ok"
	levelNote = "note"
	levelWarn = "warn"
	levelBad  = "bad"
)

// shownTrouble is something that is wrong, of one queue or of several.
type shownTrouble struct {
	Key, Text, Since, For string
}

// shown returns troubles as the page shows them: those of several queues that have one text
// are one, which is as old as the oldest.
func shown(troubles []Trouble, begun map[string]time.Time, now time.Time) (all []shownTrouble) {
	var merged []Trouble
	since := make(map[string]time.Time) // by text
	for _, t := range troubles {
		begin := begun[t.Key]
		i := slices.IndexFunc(merged, func(m Trouble) bool { return m.Text == t.Text && m.Queue != "" && t.Queue != "" })
		if i < 0 {
			merged, since[t.Text] = append(merged, t), begin
			continue
		}
		merged[i].Queue += ", " + t.Queue
		if begin.Before(since[t.Text]) {
			since[t.Text] = begin
		}
	}
	for _, t := range merged {
		begin := since[t.Text]
		all = append(all, shownTrouble{t.Key, t.String(), clock(begin, now), seconds(max(0, now.Sub(begin).Seconds()))})
	}
	return all
}

// doubt is a warning about Envoy's settings.
type doubt struct {
	About string
	Count *Number
	Words string
}

func (p *Page) view(m metrics, now time.Time) view {
	in := p.source.InForce()
	v := view{
		Now: clock(now, now), Switches: in.Switches, Words: in.Words,
		Metrics: strings.TrimPrefix(p.source.MetricsRoute, "/"),
		Started: m.get("process_start_time_seconds", nil, func(at float64) string {
			return seconds(max(0, float64(now.UnixMilli())/1000-at))
		}),
		NotGuarded: m.get("refrakt_gate_guards_nothing", nil, yesNo),
		Reload: m.get("refrakt_gate_policy_reload_successful", nil, func(ok float64) string {
			if ok == 1 {
				return "in force"
			}
			return "has a mistake; what was in force remains in force"
		}),
		Reloaded: m.get("refrakt_gate_policy_reload_success_timestamp_seconds", nil, func(at float64) string {
			return clock(time.UnixMilli(int64(at*1000)), now)
		}),
	}
	for _, s := range m.all("refrakt_gate_build_info") {
		v.Version = s.of["version"]
	}
	notReady, notWell := p.source.Reasons(), p.source.Degraded()
	begun := p.history.since(slices.Concat(notReady, notWell), now)
	reasons, degraded := shown(notReady, begun, now), shown(notWell, begun, now)
	v.Troubles = slices.Concat(reasons, degraded)
	shadows := m.shadows()
	v.Queues = p.queues(m, in, shadows)
	v.Policies, v.InShadow = p.policies(m, in, shadows)
	for _, s := range m.all("refrakt_gate_envoy_doubts_total") {
		if about := s.of["about"]; s.value > 0 {
			v.Doubts = append(v.Doubts, doubt{about, s.number(count), p.source.Doubts[about]})
		}
	}
	inShadow := 0
	for _, policy := range in.Policies {
		for _, name := range in.checks(policy) {
			inShadow += int(shadows[check{policy.Name, name}].value)
		}
	}
	v.Headlines = headlines(reasons, degraded, v.Queues, m.oldCertificates(now), in.LimitsOff, inShadow)
	return v
}

func yesNo(n float64) string {
	if n == 0 {
		return "no"
	}
	return "yes"
}

// headlines says how the gate is, the worst first. oldCertificates are the ports whose
// certificate is not renewed, inShadow is how many checks are in shadow mode.
func headlines(reasons, degraded []shownTrouble, queues []queueView, oldCertificates []string, limitsOff bool, inShadow int) (all []headline) {
	add := func(level, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		all = append(all, headline{level, strings.ToUpper(text[:1]) + text[1:]})
	}
	for _, reason := range reasons {
		if reason.Key == Stopping {
			add(levelBad, "%s", reason.Text)
		} else {
			add(levelBad, "not ready: %s", reason.Text)
		}
	}
	if len(degraded) == 1 {
		add(levelWarn, "degraded: %s", degraded[0].Text)
	} else if len(degraded) > 1 {
		add(levelWarn, "degraded: %d things do not work as they should", len(degraded))
	}
	for _, q := range queues {
		name := "the queue"
		if len(queues) > 1 {
			name = "queue " + q.Name
		}
		switch word := q.State; {
		case word != "full" && word != "slow":
		case !q.Enforced:
			add(levelNote, "%s is %s, but no policy enforces that: requests pass", name, word)
		case q.ReserveUsedUp.is(0):
			add(levelWarn, "%s is %s for callers without reserved places: their new jobs get 503", name, word)
		default:
			add(levelBad, "%s is %s: new jobs get 503", name, word)
		}
		if q.Workers.is(0) && q.Pending.value() > 0 {
			add(levelWarn, "%s has jobs that wait, and no worker is alive", name)
		}
	}
	for _, port := range oldCertificates {
		add(levelWarn, "the certificate of the port %s is not renewed", port)
	}
	if len(all) == 0 {
		add(levelOK, "healthy")
	}
	if limitsOff {
		add(levelNote, "rate limits are off: no request is limited by them")
	}
	if inShadow > 0 {
		add(levelNote, "checks in shadow mode, which deny nothing: %d", inShadow)
	}
	level := func(h headline) int { return slices.Index([]string{levelBad, levelWarn, levelOK, levelNote}, h.Level) }
	slices.SortStableFunc(all, func(a, b headline) int { return cmp.Compare(level(a), level(b)) })
	return all
}
