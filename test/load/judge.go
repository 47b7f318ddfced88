package load

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/refrakt-hub/refrakt-gate/replay"
)

// Check is one expectation and what was seen.
type Check struct {
	Phase      string // "" for the whole run
	What       string
	Want, Seen string
	OK         bool
}

type judge struct {
	run    *Run
	checks []Check
}

// Judge compares the run with what the settings say must be seen.
func Judge(r *Run) []Check {
	j := &judge{run: r}
	for _, p := range r.Phases {
		j.counts(p)
		j.alerts(p)
		switch p.Name {
		case Burst:
			j.buckets(p)
		case Fill:
			j.fills(p)
		case Stall:
			j.stalls(p)
		case Recovery:
			j.recovers(p)
		}
	}
	j.whole()
	return j.checks
}

func (j *judge) check(phase, what string, ok bool, want, seen string) {
	j.checks = append(j.checks, Check{Phase: phase, What: what, Want: want, Seen: seen, OK: ok})
}

// equal is a check of two texts that must be the same.
func (j *judge) equal(phase, what, want, seen string) { j.check(phase, what, want == seen, want, seen) }

// allowed are the codes that a phase's answers may have.
var allowed = map[string][]int{
	Normal:   {200, 202},
	Burst:    {200, 202, 429},
	Fill:     {200, 202, 503},
	Stall:    {503},
	Recovery: {200, 202, 503},
}

// counts are the expectations that every phase has.
func (j *judge) counts(p Played) {
	j.equal(p.Name, "requests sent", fmt.Sprint(p.Requests), fmt.Sprint(len(p.Answers)))

	n, good := codes(p.Answers), true
	for code := range n {
		good = good && slices.Contains(allowed[p.Name], code)
	}
	j.check(p.Name, "codes", good, "only "+join(allowed[p.Name], " ", func(c int) string { return fmt.Sprint(c) }),
		join(sorted(n), " · ", func(c int) string { return fmt.Sprintf("%d × %d", n[c], c) }))

	// What clients saw is what the gates say they decided: nothing came from elsewhere, nothing was let in unseen.
	for _, policy := range []string{policyRun, policyAssistant} {
		seen := map[string]int{}
		for _, a := range p.Answers {
			if a.Policy == policy {
				seen[reason(a)]++
			}
		}
		decided := map[string]int{}
		for d, n := range p.Decisions {
			if d.Policy == policy && n > 0 {
				decided[d.Reason] = n
			}
		}
		j.equal(p.Name, "gates' decisions on `/"+policy+"` are the clients' answers", reasons(seen), reasons(decided))
	}

	bad := 0
	for _, a := range p.Answers {
		if low, high := retryAfter(a); a.RetryAfter < low || a.RetryAfter > high {
			bad++
		}
	}
	j.equal(p.Name, "answers whose Retry-After is not what it must be (429: 1 s to the next token's interval; "+
		"503: QUEUE_RETRY_DELAY to QUEUE_RETRY_MAX and a fifth; others: none)", "0", fmt.Sprint(bad))
}

// The gate's sentences, by reason.
var details = map[string]string{
	"Too Many Requests":                                              "rate_limited",
	"The job queue is full. Please retry later.":                     "queue_full",
	"The job queue is slow: jobs wait too long. Please retry later.": "queue_slow",
}

// reason is why the gate must have said this.
func reason(a Answer) string {
	if a.admitted() {
		return "ok"
	}
	if r, ok := details[a.Detail]; ok {
		return r
	}
	return fmt.Sprintf("not the gate's: %d %s", a.Code, a.Error)
}

// reasons is a text of reasons and their numbers.
func reasons(n map[string]int) string {
	return join(sorted(n), " · ", func(r string) string { return fmt.Sprintf("%d %s", n[r], r) })
}

// retryAfter is what an answer's Retry-After may be, in seconds.
func retryAfter(a Answer) (low, high int) {
	switch a.Code {
	case 429:
		return 1, int(buckets[a.Policy].interval.Seconds())
	case 503:
		return int(retryDelay.Seconds()), int(math.Ceil(retryMax.Seconds() * 1.2))
	default:
		return 0, 0
	}
}

// The alerts that must fire in a phase, and those that may: what fired before and ends in it.
var (
	queueAlerts = []string{"QueuePendingAtLimit", "QueuePendingNearLimit"}
	stallAlerts = []string{"GateNoLiveWorker", "QueueAgeAtLimit", "QueueAgeNearLimit", "QueuePendingAtLimit", "QueuePendingNearLimit"}

	mustFire = map[string][]string{Fill: queueAlerts, Stall: stallAlerts}
	mayFire  = map[string][]string{Recovery: stallAlerts}
)

func (j *judge) alerts(p Played) {
	var fired []string
	for _, s := range j.run.Firing {
		if !s.From.After(p.End) && !s.To.Before(p.Start) && !slices.Contains(fired, s.Alert) && !slices.Contains(mayFire[p.Name], s.Alert) {
			fired = append(fired, s.Alert)
		}
	}
	slices.Sort(fired)
	what := "alerts that fire"
	if mayFire[p.Name] != nil {
		what += " besides those of the phase before"
	}
	j.equal(p.Name, what, names(mustFire[p.Name]), names(fired))
}

func names(s []string) string {
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, ", ")
}

// buckets wants each user to get what its bucket held and was refilled with, not a token more nor less.
func (j *judge) buckets(p Played) {
	for _, policy := range []string{policyRun, policyAssistant} {
		b := buckets[policy]
		least, most, admitted, outside := 0, 0, 0, 0
		for _, answers := range users(p, policy) {
			low, high := b.bounds(answers)
			// What was decided without Redis came from a replica's own buckets.
			low, high = max(0, low-p.Fallbacks), high+p.Fallbacks
			got := count(answers, Answer.admitted)
			if got < low || got > high {
				outside++
			}
			least, most, admitted = least+low, most+high, admitted+got
		}
		j.check(p.Name, "`/"+policy+"` admitted, each user within its own bounds", outside == 0 && most < ofPolicy(p, policy),
			fmt.Sprintf("%d to %d of %d, 0 users outside", least, most, ofPolicy(p, policy)),
			fmt.Sprintf("%d, %d users outside", admitted, outside))
	}
}

// users are the answers of one policy, by user.
func users(p Played, policy string) map[int][]Answer {
	all := make(map[int][]Answer)
	for _, a := range p.Answers {
		if a.Policy == policy {
			all[a.User] = append(all[a.User], a)
		}
	}
	return all
}

func ofPolicy(p Played, policy string) int {
	return count(p.Answers, func(a Answer) bool { return a.Policy == policy })
}

func (j *judge) fills(p Played) {
	// An admitted run counts for a while as a job to come; the job of one that took longer may come on top.
	slow := count(p.Answers, func(a Answer) bool { return a.job() && a.latency() > admissionWindow })
	j.check(p.Name, "greatest depth: reaches QUEUE_MAX_PENDING, never above (but for runs that took longer than QUEUE_ADMISSION_WINDOW)",
		p.MaxDepth >= maxPending && p.MaxDepth <= maxPending+slow, span(maxPending, maxPending+slow), fmt.Sprint(p.MaxDepth))

	// Each slot begins one job at once and one more with each job's end; what is in the queue is as above.
	most := maxPending + slow + slots*(1+int(p.End.Sub(p.Start).Seconds()/fillSeconds))
	got := count(p.Answers, Answer.job)
	j.check(p.Name, "runs admitted: what fits into queue and slots", got >= maxPending+slots && got <= most,
		span(maxPending+slots, most), fmt.Sprint(got))

	for _, policy := range []string{policyRun, policyAssistant} {
		n := count(p.Answers, func(a Answer) bool { return a.Policy == policy && reason(a) == "queue_full" })
		j.check(p.Name, "`/"+policy+"` refused for the full queue", n > 0, "some", fmt.Sprint(n))
	}
}

func (j *judge) stalls(p Played) {
	j.equal(p.Name, "depth, least to greatest", span(maxPending, maxPending), span(p.MinDepth, p.MaxDepth))
	age := highest(within(j.run.Age, p))
	j.check(p.Name, "greatest age of the oldest job", age >= maxAge.Seconds(), fmt.Sprintf("%.0f s or more", maxAge.Seconds()), fmt.Sprintf("%.0f s", age))
	workers := within(j.run.LiveWorkers, p)
	seen := "unknown"
	if len(workers) > 0 {
		seen = fmt.Sprint(workers[len(workers)-1].Value)
	}
	j.equal(p.Name, "live workers at the end", "0", seen)
}

func (j *judge) recovers(p Played) {
	slow := count(p.Answers, func(a Answer) bool { return reason(a) == "queue_slow" })
	j.check(p.Name, "refused for the slow queue: room again, but old jobs", slow > 0, "some", fmt.Sprint(slow))
	lastMinute := count(p.Answers, func(a Answer) bool { return a.Sent.After(p.End.Add(-time.Minute)) && !a.admitted() })
	j.equal(p.Name, "refused in the last minute", "0", fmt.Sprint(lastMinute))
}

// whole are the expectations on the run as a whole.
func (j *judge) whole() {
	r, jobs := j.run, j.run.Jobs
	want := map[string]int{"api": jobs.Extra}
	for _, p := range r.Phases {
		for _, a := range p.Answers {
			if a.job() {
				want[map[string]string{policyRun: "api", policyAssistant: "assistant"}[a.Policy]]++
			}
		}
	}
	seen, total := map[string]int{}, 0
	for source, n := range jobs.Enqueued {
		if n > 0 {
			seen[source] = n
		}
		total += n
	}
	j.equal("", "jobs enqueued, by source: those that the API accepted", reasons(want), reasons(seen))
	j.equal("", "jobs started, and waits observed", fmt.Sprintf("%d, %d", total, total), fmt.Sprintf("%d, %d", jobs.Started, jobs.Waits))
	j.equal("", "jobs ended", fmt.Sprint(total), fmt.Sprint(jobs.Ended))
	j.check("", "jobs failed: only what stopped workers held", jobs.Failed <= jobs.RunningWhenStalled,
		fmt.Sprintf("at most %d", jobs.RunningWhenStalled), fmt.Sprint(jobs.Failed))
	j.equal("", "jobs left at the end, waiting and running", "0, 0", fmt.Sprintf("%d, %d", jobs.PendingAtEnd, jobs.RunningAtEnd))

	j.equal("", "refusals that `refrakt-gate replay` finds in Envoy's access log: those that the gates counted",
		refusals(r.Decided), refusals(replayed(r.Replay.Hours)))
	j.check("", "verdicts of the buckets that a replay of the log says again", float64(r.Replay.Same) >= 0.999*float64(r.Replay.Compared),
		"99.9 %", fmt.Sprintf("%d of %d", r.Replay.Same, r.Replay.Compared))

	for _, h := range r.Replay.Hours {
		j.check("", fmt.Sprintf("refused again by the buckets of `/%s` at %s", h.Policy, h.Hour.Format("15:04")),
			math.Abs(float64(h.Refused-h.Recorded)) <= 0.001*float64(h.Recorded)+1, fmt.Sprint(h.Recorded), fmt.Sprint(h.Refused))
	}

	var still []string
	for _, s := range r.Firing {
		if s.To.After(r.End.Add(-Step)) {
			still = append(still, s.Alert)
		}
	}
	j.equal("", "alerts that fire at the end", "none", names(still))
	// GateUnavailableShareRising compares with what was 10 minutes ago and waits 5: it has nothing to compare with.
	j.check("", "length of the run: too short for the alerts on rising shares", r.End.Sub(r.Start) < 15*time.Minute, "below 15 min",
		r.End.Sub(r.Start).Round(time.Second).String())
}

// refusals is a text of how many requests buckets and queue refused, by policy.
func refusals(decided map[Decision]int) string {
	n := map[string]int{}
	for d, count := range decided {
		switch {
		case count == 0 || d.Reason == "ok":
		case d.Reason == "rate_limited":
			n["by a bucket of `/"+d.Policy+"`"] += count
		default:
			n["of `/"+d.Policy+"` by the queue"] += count
		}
	}
	return reasons(n)
}

// replayed are the refusals in the log, as a replay counts them.
func replayed(hours []replay.Hour) map[Decision]int {
	n := map[Decision]int{}
	for _, h := range hours {
		n[Decision{h.Policy, "rate_limited"}] += h.Recorded
		n[Decision{h.Policy, "queue"}] += h.Queue
	}
	return n
}

// highest is the greatest value that is known, NaN if none is.
func highest(points []Point) float64 {
	most := math.NaN()
	for _, p := range points {
		if math.IsNaN(most) || p.Value > most {
			most = p.Value
		}
	}
	return most
}

// span is the text of a range of numbers.
func span(low, high int) string {
	if low == high {
		return fmt.Sprint(low)
	}
	return fmt.Sprintf("%d to %d", low, high)
}

func join[T any](all []T, sep string, text func(T) string) string {
	parts := make([]string, 0, len(all))
	for _, t := range all {
		parts = append(parts, text(t))
	}
	return strings.Join(parts, sep)
}
