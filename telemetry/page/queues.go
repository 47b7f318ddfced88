package page

import (
	"cmp"
	"maps"
	"slices"
)

// queueView is one queue and its thresholds.
type queueView struct {
	Name  string
	State string // ok, full, slow or unknown; empty if the metrics have none
	Level string
	// Enforced says that a policy that is not in shadow mode asks the queue.
	Enforced bool

	StateIs                            *Number
	Pending, Limit, Age, AgeLimit      *Number
	Drain, Workers, Running, SampleAge *Number
	LargestShare, ShareLimit           *Number // nil: no fair share
	ReserveUsedUp                      *Number // nil: no reserve
	PendingBar, AgeBar                 *gauge  // nil: not known, or not checked
	PendingLine, AgeLine               line
}

// queues returns the queues that the metrics have, in the order of the file.
func (p *Page) queues(m metrics, in InForce, shadows map[check]series) []queueView {
	var all []queueView
	seen := make(map[string]bool)
	for _, s := range m.all("refrakt_gate_queue_state") {
		queue, named := s.of["queue"]
		if seen[queue] {
			continue
		}
		seen[queue] = true
		q := p.queue(m, in, queue, named)
		q.Enforced = slices.ContainsFunc(in.Policies, func(p Policy) bool {
			return p.Queue == q.Name && shadows[check{p.Name, "queue"}].value == 0
		})
		all = append(all, q)
	}
	at := func(q queueView) int {
		if i := slices.Index(in.Queues, q.Name); i >= 0 {
			return i
		}
		return len(in.Queues)
	}
	slices.SortStableFunc(all, func(a, b queueView) int { return cmp.Compare(at(a), at(b)) })
	return all
}

// queue returns one queue. If the series do not name it, it is the only one.
func (p *Page) queue(m metrics, in InForce, name string, named bool) queueView {
	label := labels{}
	if named {
		label["queue"] = name
	} else if len(in.Queues) > 0 {
		name = in.Queues[0]
	}
	get := func(metric string, text func(float64) string) *Number { return m.get(metric, label, text) }
	q := queueView{
		Name:          name,
		Level:         levelWarn,
		Pending:       get("refrakt_queue_pending_jobs", count),
		Limit:         get("refrakt_gate_queue_limit_pending_jobs", threshold(count)),
		Age:           get("refrakt_queue_oldest_pending_seconds", seconds),
		AgeLimit:      get("refrakt_gate_queue_limit_age_seconds", threshold(seconds)),
		Drain:         get("refrakt_gate_queue_drain_jobs_per_second", perMinute),
		Workers:       get("refrakt_gate_queue_live_workers", count),
		Running:       get("refrakt_queue_running_jobs", count),
		SampleAge:     get("refrakt_gate_queue_sample_age_seconds", seconds),
		LargestShare:  get("refrakt_gate_queue_largest_share_jobs", count),
		ShareLimit:    get("refrakt_gate_queue_share_limit_jobs", count),
		ReserveUsedUp: get("refrakt_gate_queue_reserve_used_up", yesNo),
	}
	for state, level := range map[string]string{"ok": levelOK, "full": levelBad, "slow": levelBad, unknown: levelWarn} {
		of := maps.Clone(label)
		of["state"] = state
		if n := m.get("refrakt_gate_queue_state", of, count); n.is(1) {
			n.Text = state
			q.State, q.Level, q.StateIs = state, level, n
		}
	}
	q.PendingBar, q.AgeBar = newGauge(q.Pending.value(), q.Limit.value()), newGauge(q.Age.value(), q.AgeLimit.value())
	pending, age := p.history.depths(name)
	q.PendingLine = newLine(append(pending, q.Pending.value()), q.Limit.value(), count)
	q.AgeLine = newLine(append(age, q.Age.value()), q.AgeLimit.value(), seconds)
	return q
}

// threshold writes a threshold, of which 0 is none.
func threshold(text func(float64) string) func(float64) string {
	return func(n float64) string {
		if n == 0 {
			return "not checked"
		}
		return "of " + text(n)
	}
}
