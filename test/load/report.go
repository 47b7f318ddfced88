package load

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func (c Check) where() string {
	if c.Phase == "" {
		return "whole run"
	}
	return c.Phase
}

// WriteReport writes report.md and its plots into dir.
func WriteReport(dir string, r *Run, checks []Check) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("create report folder: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "report.md"), []byte(report(r, checks)), 0o600); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return writePlots(dir, r)
}

func report(r *Run, checks []Check) string {
	var b strings.Builder
	failed := count(checks, func(c Check) bool { return !c.OK })
	fmt.Fprintf(&b, "# Load test\n\n%s, %v long, gate %s, %d processors. %d of %d expectations were met.\n\n",
		r.Start.UTC().Format("2006-01-02 15:04 MST"), r.End.Sub(r.Start).Round(time.Second), r.Version, r.CPUs, len(checks)-failed, len(checks))
	fmt.Fprintf(&b, "%d users through one Envoy, %d gates, the example API, %d SAQ workers with %d slots each, Redis, and a Prometheus with "+
		"the rules as shipped, all on one machine. Settings: %s; all but `QUEUE_MAX_AGE_SECONDS` are the defaults. Latencies are "+
		"what the clients saw and depend on the machine: nothing is expected of them.\n", Users, Gates, Workers, Concurrency, settingsText())

	b.WriteString("\n## Phases\n\n| phase | begins | traffic | what must be seen, and why |\n|---|---|---|---|\n")
	for _, p := range r.Phases {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", p.Name, r.clock(p.Start), p.What, p.Why)
	}
	b.WriteString("\n![answers by code](answers.svg)\n\n![depth of the queue](depth.svg)\n\n![age of the oldest job](age.svg)\n")

	b.WriteString("\n## Answers\n\n| phase | requests | 200, 202 | 429 | 503 queue full | 503 queue slow | other | depth in Redis |\n|---|---|---|---|---|---|---|---|\n")
	for _, p := range r.Phases {
		by := map[string]int{}
		for _, a := range p.Answers {
			by[reason(a)]++
		}
		other := len(p.Answers) - by["ok"] - by["rate_limited"] - by["queue_full"] - by["queue_slow"]
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d | %s |\n", p.Name, len(p.Answers), by["ok"], by["rate_limited"],
			by["queue_full"], by["queue_slow"], other, span(p.MinDepth, p.MaxDepth))
	}

	b.WriteString("\n## Refused by the limiter\n\n| phase | policy | users | requests | admitted | refused | least and most admitted to one user |\n|---|---|---|---|---|---|---|\n")
	for _, p := range r.Phases {
		for _, policy := range []string{policyRun, policyAssistant} {
			refused := count(p.Answers, func(a Answer) bool { return a.Policy == policy && reason(a) == "rate_limited" })
			if refused == 0 {
				continue
			}
			all := users(p, policy)
			var each []int
			for _, answers := range all {
				each = append(each, count(answers, Answer.admitted))
			}
			admitted := count(p.Answers, func(a Answer) bool { return a.Policy == policy && a.admitted() })
			fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %s |\n", p.Name, policy, len(all), ofPolicy(p, policy), admitted, refused,
				span(slices.Min(each), slices.Max(each)))
		}
	}

	b.WriteString("\n## Latencies\n\n| phase | answers | number | p50 | p90 | p99 | longest |\n|---|---|---|---|---|---|---|\n")
	for _, p := range r.Phases {
		for _, kind := range []struct {
			name string
			is   func(Answer) bool
		}{{"admitted", Answer.admitted}, {"refused", func(a Answer) bool { return !a.admitted() }}} {
			var took []time.Duration
			for _, a := range p.Answers {
				if kind.is(a) {
					took = append(took, a.latency())
				}
			}
			if len(took) == 0 {
				continue
			}
			slices.Sort(took)
			fmt.Fprintf(&b, "| %s | %s | %d | %s | %s | %s | %s |\n", p.Name, kind.name, len(took),
				millis(quantile(took, 0.5)), millis(quantile(took, 0.9)), millis(quantile(took, 0.99)), millis(took[len(took)-1]))
		}
	}

	b.WriteString("\n## Alerts\n\n| alert | fired from | until | phase in which it began |\n|---|---|---|---|\n")
	slices.SortStableFunc(r.Firing, func(a, b Span) int { return a.From.Compare(b.From) })
	for _, s := range r.Firing {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", s.Alert, r.clock(s.From), r.clock(s.To), r.phaseAt(s.From))
	}

	b.WriteString("\n## Expectations\n\n| phase | expectation | wanted | seen | |\n|---|---|---|---|---|\n")
	for _, c := range checks {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", c.where(), c.What, c.Want, c.Seen, map[bool]string{true: "ok", false: "**differs**"}[c.OK])
	}
	return b.String()
}

func settingsText() string {
	settings := Settings()
	return join(sorted(settings), ", ", func(name string) string { return fmt.Sprintf("`%s=%s`", name, settings[name]) })
}

// clock is the time since the run began, as minutes and seconds.
func (r *Run) clock(at time.Time) string {
	s := int(at.Sub(r.Start).Round(time.Second).Seconds())
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// phaseAt is the phase at that time, or the one before.
func (r *Run) phaseAt(at time.Time) string {
	name := "before the first"
	for _, p := range r.Phases {
		if !p.Start.After(at) {
			name = p.Name
		}
	}
	return name
}

// quantile is the nearest rank of sorted durations.
func quantile(took []time.Duration, q float64) time.Duration {
	return took[max(0, int(math.Ceil(q*float64(len(took))))-1)]
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1000) }
