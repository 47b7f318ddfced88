package backpressure

import (
	"slices"
	"time"
)

const (
	// drainWindow is the period over which the drain rate is measured. If fewer than drainJobs
	// jobs left in it, the time is longer, drainLimit at most.
	drainWindow = 30 * time.Second
	drainJobs   = 30
	drainLimit  = 10 * time.Minute
	// drainGrain is the shortest span that is kept; shorter ones become part of the next.
	drainGrain = time.Second
)

// drain observes how fast workers take jobs. The zero value is ready.
type drain struct {
	spans []span // oldest first
	last  Sample
	at    time.Time // of last; zero: there was none
}

// span is the time between two samples.
type span struct {
	end    time.Time
	took   time.Duration
	waited bool  // jobs waited at both ends of the span, so no worker was idle
	exact  bool  // otherwise more may have left
	left   int64 // jobs that left the list
	filled int64 // growth of the number of jobs that workers hold
	fleet  int64 // jobs that all gates admitted
	own    int64 // jobs that this gate admitted
}

// flow is what was observed lately.
type flow struct {
	leaving float64 // jobs that leave the list per second, whether or not others wait
	// perSecond is the rate at which places become free while jobs wait, 0 if none did.
	// It was observed from so many jobs.
	perSecond, jobs float64
	share           float64 // this gate's part of the jobs that are admitted; 1 while unknown
}

// observe takes in the newest sample and how many jobs this gate has admitted since the
// sample before.
func (d *drain) observe(at time.Time, r Sample, own int64) flow {
	if took := at.Sub(d.at); !d.at.IsZero() && took > 0 {
		grown := r.Pending - d.last.Pending
		fleet := r.Admitted - d.last.Admitted
		if fleet < 0 {
			fleet = r.Admitted
		}
		// Workers that take jobs at the tail of the list leave the cursor's jobs in place.
		left := max(0, r.Left, -grown)
		d.add(span{
			end: at, took: took, waited: r.Pending > 0 && d.last.Pending > 0, exact: r.LeftExact,
			left: left, filled: r.Running - d.last.Running, fleet: fleet, own: own,
		})
	}
	d.at, d.last = at, r
	return d.flow(at)
}

// add appends a span, or adds it to the newest one while that is short.
func (d *drain) add(s span) {
	oldest := s.end.Add(-drainLimit)
	d.spans = slices.DeleteFunc(d.spans, func(p span) bool { return p.end.Before(oldest) })
	if n := len(d.spans); n > 0 && d.spans[n-1].took < drainGrain && d.spans[n-1].waited == s.waited && d.spans[n-1].exact == s.exact {
		p := &d.spans[n-1]
		p.end, p.took = s.end, p.took+s.took
		p.left, p.filled, p.fleet, p.own = p.left+s.left, p.filled+s.filled, p.fleet+s.fleet, p.own+s.own
		return
	}
	d.spans = append(d.spans, s)
}

func (d *drain) flow(now time.Time) flow {
	var all, some rated
	var fleet, own int64
	var least flow // from spans in which more jobs may have left
	for _, s := range slices.Backward(d.spans) {
		fleet, own = fleet+s.fleet, own+s.own
		recent := s.end.After(now.Add(-drainWindow))
		if recent {
			all.add(s.left, 0, s.took)
		}
		if !s.waited || !recent && some.jobs() >= drainJobs {
			continue
		}
		if s.exact {
			some.add(s.left, s.filled, s.took)
		} else if r := (rated{s.left, s.filled, s.took}); r.perSecond() > least.perSecond {
			least.jobs, least.perSecond = r.jobs(), r.perSecond()
		}
	}
	f := flow{leaving: all.perSecond(), perSecond: some.perSecond(), jobs: some.jobs(), share: 1}
	if least.perSecond > f.perSecond {
		f.perSecond, f.jobs = least.perSecond, least.jobs
	}
	if fleet >= drainJobs {
		f.share = min(1, float64(max(1, own))/float64(fleet))
	}
	return f
}

// rated is a number of jobs in a time.
type rated struct {
	left, filled int64
	took         time.Duration
}

func (r *rated) add(left, filled int64, took time.Duration) {
	r.left, r.filled, r.took = r.left+left, r.filled+filled, r.took+took
}

// jobs leaves out the jobs that idle workers took. An idle worker takes a job at once,
// which tells nothing about when the next place becomes free.
func (r rated) jobs() float64 { return float64(max(0, r.left-max(0, r.filled))) }

func (r rated) perSecond() float64 {
	if r.took == 0 {
		return 0
	}
	return r.jobs() / r.took.Seconds()
}
