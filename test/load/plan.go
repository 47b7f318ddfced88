package load

import (
	"fmt"
	"time"
)

// Request is what one user asks.
type Request struct {
	User    int
	Policy  string
	Job     bool    // whether a job comes of it
	Seconds float64 // how long that job takes
}

// Path is the request's path; n tells it from all others of its phase.
func (r Request) Path(phase string, n int) string {
	return fmt.Sprintf("/%s?user_id=%s-%d&n=%d", r.Policy, phase, r.User, n)
}

// Body is the request's JSON.
func (r Request) Body() string {
	if r.Policy == policyRun {
		return fmt.Sprintf(`{"seconds": %g}`, r.Seconds)
	}
	return fmt.Sprintf(`{"message": "hello", "start_job": %t, "seconds": %g}`, r.Job, r.Seconds)
}

// Phase is some time of traffic of one kind. Each has users of its own, so that each begins with full buckets.
type Phase struct {
	Name string
	// Requests are sent Volley at once, a volley each Every.
	Requests, Volley int
	Every            time.Duration
	Ask              func(n int) Request
	// What is said of it in the report: what it is, and why the answers must be what is expected.
	What, Why string
}

// Duration is how long the phase takes.
func (p Phase) Duration() time.Duration { return p.due(p.Requests) }

// due is when the n-th request is sent, after the beginning.
func (p Phase) due(n int) time.Duration { return time.Duration(n/p.Volley) * p.Every }

// Pace implements vegeta's Pacer.
func (p Phase) Pace(elapsed time.Duration, hits uint64) (wait time.Duration, stop bool) {
	n := int(hits)
	return max(0, p.due(n)-elapsed), n >= p.Requests
}

// Rate implements vegeta's Pacer.
func (p Phase) Rate(time.Duration) float64 { return float64(p.Volley) / p.Every.Seconds() }

// The phases.
const (
	Normal   = "normal"
	Burst    = "burst"
	Fill     = "fill"
	Stall    = "stall"
	Recovery = "recovery"
)

const (
	// fillSeconds is how long the jobs that fill the queue take. Not a divisor of the rules' 15 s: all workers take
	// their next jobs at the same moment, and the rules must not look at each of these moments.
	fillSeconds = 12

	runsPerSecond = 10 // of the phases in which the queue is full

	// alertDelay is the longest time from the beginning of a condition to its alert: the gauge is set every 5 s and
	// scraped every 5 s, the recording rule is evaluated every 15 s, the alert's too, and it waits 2 minutes.
	alertDelay = (5 + 5 + 15 + 15 + 120) * time.Second

	// resolveDelay is the same for its end: the alerts look at the highest of the last minute.
	resolveDelay = (5 + 5 + 15 + 15 + 60) * time.Second
)

// Plan is the phases in their order.
func Plan() []Phase {
	return []Phase{
		{
			Name: Normal, Requests: 450, Volley: 1, Every: 100 * time.Millisecond, Ask: mixed,
			What: "10 requests a second, each user one in 5 s. One in five is a `/run`, one in five an `/assistant` that starts a job; the jobs take 1 s.",
			Why: "A user sends 9 requests in 45 s, 2 of them to `/run`: fewer than the 10 and 30 that its buckets hold. Some 4 jobs a second of 1 s " +
				"keep 4 of the 8 slots busy. So nothing is refused.",
		},
		{
			Name: Burst, Requests: 90 * Users, Volley: Users, Every: 500 * time.Millisecond, Ask: greedy,
			What: "All 50 users at the same moment, twice a second: 10 of them ask `/run` (jobs of no length), 40 `/assistant`.",
			Why: "A user offers 90 requests in 45 s. A full bucket admits its capacity and what is refilled meanwhile: 10 + 6/min of `/run`, " +
				"30 + 30/min of `/assistant`. The rest is 429. A user's least and most are computed from the moments at which each request was sent and " +
				"answered, between which the token was asked for. The runs that are admitted are at most 20 a second: no more than 40 in two " +
				"admission windows, so nothing is 503.",
		},
		{
			Name: Fill, Requests: 180 * 2 * runsPerSecond, Volley: 1, Every: time.Second / (2 * runsPerSecond), Ask: filling,
			What: "20 requests a second, `/run` and `/assistant` in turn; the jobs take 12 s.",
			Why: "8 slots take 0.67 jobs a second, 10 are offered: the queue is full after 5 s and stays so, at 40 and never above (a run that was admitted " +
				"counts for 0.5 s as a job to come; one that took longer may come on top). Not more runs can be admitted than fit into the queue " +
				"and the slots. The rest, and `/assistant` while the queue is full, is 503. The oldest job waits for at most 5 rounds of 12 s, less than the 75 s " +
				"of QueueAgeNearLimit. A pending alert fires within 160 s: gauge 5, scrape 5, recording rule 15, alert 15, `for` 120.",
		},
		{
			Name: Stall, Requests: 225 * 2 * runsPerSecond, Volley: 1, Every: time.Second / (2 * runsPerSecond), Ask: filling,
			What: "The same traffic while both workers are stopped (SIGSTOP). The queue was filled up to 40 before.",
			Why: "Nobody takes a job, so all is 503 and the depth stays at 40. The oldest job, of at least 48 s when it begins, is 100 s old 52 s later, and " +
				"the age alerts fire within 160 s from there. A worker's report counts for 11 s: GateNoLiveWorker fires within 171 s.",
		},
		{
			Name: Recovery, Requests: 1750, Volley: 1, Every: 100 * time.Millisecond, Ask: mixed,
			What: "The traffic of the first phase; the workers go on (SIGCONT).",
			Why: "The 8 jobs under way when the workers were stopped are past SAQ's timeout and fail. 40 jobs in 8 slots of 12 s are taken within 48 s; " +
				"until then they are older than 100 s and the queue is slow: 503. The last 8 then hold the slots for 12 s more, in which 4 new jobs a second " +
				"come: the queue may be full once more, and go above its limit, for an `/assistant` that starts a job is let in without a look at the room. " +
				"After that all is admitted. The alerts look at the highest of the last minute and end within 100 s after the queue is well.",
		},
	}
}

// mixed is what users do who keep below their limits.
func mixed(n int) Request {
	user, round := n%Users, n/Users
	switch (user + round) % 5 {
	case 0:
		return Request{User: user, Policy: policyRun, Job: true, Seconds: 1}
	case 1:
		return Request{User: user, Policy: policyAssistant, Job: true, Seconds: 1}
	default:
		return Request{User: user, Policy: policyAssistant}
	}
}

// greedy is what users do who ask as much as they can.
func greedy(n int) Request {
	if user := n % Users; user >= 10 {
		return Request{User: user, Policy: policyAssistant}
	}
	return Request{User: n % Users, Policy: policyRun, Job: true}
}

// filling brings more jobs than the workers can take. Only /run does: an /assistant that starts a job is admitted
// without a look at the queue's room.
func filling(n int) Request {
	user := n / 2 % Users
	if n%2 == 0 {
		return Request{User: user, Policy: policyRun, Job: true, Seconds: fillSeconds}
	}
	return Request{User: user, Policy: policyAssistant}
}
