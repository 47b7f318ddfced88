package backpressure

import (
	"context"
	"errors"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/breaker"
)

// Place is the place that a request asks for.
func (v View) Place(a Asker) Place { return v.bounds.place(a) }

// Admit makes the final check before a request may add a job. StateOK
// means that the request was admitted and counted, in one round trip. Admit never
// waits for a Redis known to be away; the state is then full if the newest sample
// says so, else unknown.
func (v View) Admit(ctx context.Context, a Asker) Verdict {
	state, wait := v.tryAdmit(ctx, a)
	return v.verdict(a.Address, state, wait)
}

// tryAdmit is Admit; the wait is without jitter and retry slot.
func (v View) tryAdmit(ctx context.Context, a Asker) (State, time.Duration) {
	p, to := v.Place(a), v.bounds.seen(a)
	if p.Limit == 0 {
		v.usage.admitted(time.Now())
		return StateOK, 0
	}
	if ctx.Err() != nil {
		return v.notAsked(to)
	}
	var admission Admission
	err := v.breaker.Do(ctx, func(ctx context.Context) (err error) {
		admission, err = v.queue.Admit(ctx, p, v.cfg.AdmissionWindow)
		return err
	})
	if errors.Is(err, context.Canceled) || errors.Is(err, breaker.ErrOpen) {
		return v.notAsked(to)
	}
	return v.conclude(to, admission, err)
}

// Admitted makes the verdict where somebody else has asked for the admission, together
// with something else. unreadable says that the queue could not be read.
func (v View) Admitted(a Asker, got Admission, unreadable bool) Verdict {
	if unreadable {
		v.failed(errUnreadable)
		// An older sample does not decide: tokens that are paid would have to come back.
		return v.verdict(a.Address, StateUnknown, v.cfg.RetryDelay)
	}
	state, wait := v.conclude(v.bounds.seen(a), got, nil)
	return v.verdict(a.Address, state, wait)
}

var errUnreadable = errors.New("the script that takes tokens can't read the queue or count an admission: its keys have another type, or the Redis user lacks a right")

func (m *Monitor) failed(err error) {
	m.metrics.admitErrors.Inc()
	m.admitting.Fail(err)
}

// conclude is what an admission says about the queue to a caller that sees these
// thresholds. That the caller has its share says nothing to others.
func (v View) conclude(to thresholds, a Admission, err error) (State, time.Duration) {
	if err != nil {
		v.failed(err)
		return v.notAsked(to)
	}
	v.admitting.Succeed()
	now := time.Now()
	if a.Admitted {
		v.admittedHere.Add(1)
		v.usage.admitted(now)
		v.refused[to.class].Store(nil)
		return StateOK, 0
	}
	if a.OverShare {
		return StateShare, drainTime(v.cfg, float64(a.Pending), v.flow(now), 0)
	}
	v.refused[to.class].Store(&refusal{at: now, pending: a.Pending})
	return StateFull, roomWait(v.cfg, to, a.Pending, v.flow(now))
}

// notAsked is the answer where Redis could not be asked. A sample can refuse a job, but
// not admit one.
func (v View) notAsked(to thresholds) (State, time.Duration) {
	if state, wait := judge(v.cfg, to, v.sample(), time.Now()); state == StateFull {
		return state, wait
	}
	return StateUnknown, v.cfg.RetryDelay
}
