// Package load plays a few minutes of traffic through real Envoy, gates, API and workers while a real Prometheus
// scrapes, and compares what was seen with what the settings say must be seen. `make load` runs it; the files without
// the build tag load are the plan, the judgement and the report, which need nothing running.
package load

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/refrakt-hub/refrakt-gate/replay"
)

// The gates' settings. All but maxAge are the defaults; they are set all the same, for the expectations are computed
// from them.
const (
	runBurst           = 10
	runPerMinute       = 6
	assistantBurst     = 30
	assistantPerMinute = 30
	maxPending         = 40
	admissionWindow    = 500 * time.Millisecond
	retryDelay         = 30 * time.Second
	retryMax           = 600 * time.Second
	// maxAge is a sixth of the default, so that minutes suffice to get there.
	maxAge = 100 * time.Second
)

// Settings are the gates' settings as they take them.
func Settings() map[string]string {
	return map[string]string{
		"RATE_LIMIT_RUN_BURST":            strconv.Itoa(runBurst),
		"RATE_LIMIT_RUN_PER_MINUTE":       strconv.Itoa(runPerMinute),
		"RATE_LIMIT_ASSISTANT_BURST":      strconv.Itoa(assistantBurst),
		"RATE_LIMIT_ASSISTANT_PER_MINUTE": strconv.Itoa(assistantPerMinute),
		"QUEUE_MAX_PENDING":               strconv.Itoa(maxPending),
		"QUEUE_ADMISSION_WINDOW":          admissionWindow.String(),
		"QUEUE_RETRY_DELAY":               retryDelay.String(),
		"QUEUE_RETRY_MAX":                 retryMax.String(),
		"QUEUE_MAX_AGE_SECONDS":           maxAge.String(),
	}
}

// What runs around the gates.
const (
	Gates       = 2 // behind one Envoy
	Workers     = 2 // SAQ workers
	Concurrency = 4 // jobs that each worker runs at once
	Users       = 50

	slots = Workers * Concurrency
)

// The two policies, and the paths they guard.
const (
	policyRun       = "run"
	policyAssistant = "assistant"
)

// Answer is one request and what came of it.
type Answer struct {
	Request

	Sent, Done time.Time
	Code       int    // 0: none
	Error      string // why there is none
	Detail     string // of the gate's refusals; "" of others'
	RetryAfter int    // seconds; 0: not told
}

// admitted says that the API answered.
func (a Answer) admitted() bool { return a.Code == 200 || a.Code == 202 }

// job says that the API enqueued a job for it.
func (a Answer) job() bool { return a.admitted() && a.Job }

func (a Answer) latency() time.Duration { return a.Done.Sub(a.Sent) }

// Decision is a policy and a reason, as the gates count them.
type Decision struct{ Policy, Reason string }

// Played is a phase as it went.
type Played struct {
	Phase

	Start, End time.Time // the last answer's
	Answers    []Answer
	// Decisions are what all gates counted in the phase; Fallbacks, those of them that were made without Redis.
	Decisions map[Decision]int
	Fallbacks int
	// The queue's depth in Redis, seen ten times a second.
	MinDepth, MaxDepth int
}

// Point is one value of a series.
type Point struct {
	At    time.Time
	Value float64
}

// Span is a time in which an alert fired.
type Span struct {
	Alert    string
	From, To time.Time
}

// Jobs are the job metrics summed over the gates at the end, and what they must agree with.
type Jobs struct {
	Enqueued                   map[string]int // by source
	Started, Ended, Failed     int
	Waits                      int // observations of the time waited
	Extra                      int // jobs of /run accepted between the phases
	RunningWhenStalled         int // jobs that stopped workers held
	PendingAtEnd, RunningAtEnd int
}

// Run is all that was seen.
type Run struct {
	Start, End time.Time
	Version    string
	CPUs       int
	Phases     []Played
	// What Prometheus has of the queue, a point each Step.
	Depth, Age, LiveWorkers []Point
	Firing                  []Span
	Jobs                    Jobs
	// Decided are what all gates counted in the whole run, and Replay is what `refrakt-gate replay` says of Envoy's access
	// log with the same limits.
	Decided map[Decision]int
	Replay  replay.Report
}

// Step is the distance of the points that are asked of Prometheus: the scrape interval.
const Step = 5 * time.Second

// phase is the phase of that name.
func (r *Run) phase(name string) Played {
	i := slices.IndexFunc(r.Phases, func(p Played) bool { return p.Name == name })
	return r.Phases[i]
}

// codes counts answers by code.
func codes(answers []Answer) map[int]int {
	n := make(map[int]int)
	for _, a := range answers {
		n[a.Code]++
	}
	return n
}

func count[T any](all []T, is func(T) bool) (n int) {
	for _, a := range all {
		if is(a) {
			n++
		}
	}
	return n
}

func sorted[K int | string, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// within are the points of a phase.
func within(points []Point, p Played) []Point {
	return slices.DeleteFunc(slices.Clone(points), func(q Point) bool { return q.At.Before(p.Start) || q.At.After(p.End) })
}
