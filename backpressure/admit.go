package backpressure

import (
	"context"
	"errors"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/breaker"
)

// Place is the place that a request asks for.
func (m *Monitor) Place(a Asker) Place {
	b := m.bounds.Load()
	p := Place{Limit: b.seen(a).pending}
	if b.FairShare > 0 && p.Limit > 0 {
		p.Share, p.Caller = b.FairShare, a.Sharer
	}
	return p
}

// Admit makes the final check before a request may add a job. StateOK
// means that the request was admitted and counted, in one round trip. Admit never
// waits for a Redis known to be away; the state is then full if the newest sample
// says so, else unknown.
func (m *Monitor) Admit(ctx context.Context, a Asker) Verdict {
	state, wait := m.tryAdmit(ctx, a)
	return m.verdict(a.Address, state, wait)
}

// tryAdmit is Admit; the wait is without jitter and retry slot.
func (m *Monitor) tryAdmit(ctx context.Context, a Asker) (State, time.Duration) {
	p, to := m.Place(a), m.bounds.Load().seen(a)
	if p.Limit == 0 {
		m.usage.admitted(time.Now())
		return StateOK, 0
	}
	if ctx.Err() != nil {
		return m.notAsked(to)
	}
	var admission Admission
	err := m.breaker.Do(ctx, func(ctx context.Context) (err error) {
		admission, err = m.queue.Admit(ctx, p, m.cfg.AdmissionWindow)
		return err
	})
	if errors.Is(err, context.Canceled) || errors.Is(err, breaker.ErrOpen) {
		return m.notAsked(to)
	}
	return m.conclude(to, admission, err)
}

// Admitted makes the verdict where somebody else has asked for the admission, together
// with something else. unreadable says that the queue could not be read.
func (m *Monitor) Admitted(a Asker, got Admission, unreadable bool) Verdict {
	if unreadable {
		m.failed(errUnreadable)
		// An older sample does not decide: tokens that are paid would have to come back.
		return m.verdict(a.Address, StateUnknown, m.cfg.RetryDelay)
	}
	state, wait := m.conclude(m.bounds.Load().seen(a), got, nil)
	return m.verdict(a.Address, state, wait)
}

var errUnreadable = errors.New("the script that takes tokens can't read the queue or count an admission: its keys have another type, or the Redis user lacks a right")

func (m *Monitor) failed(err error) {
	m.metrics.admitErrors.Inc()
	m.admitting.Fail(err)
}

// conclude is what an admission says about the queue to a caller that sees these
// thresholds. That the caller has its share says nothing to others.
func (m *Monitor) conclude(to thresholds, a Admission, err error) (State, time.Duration) {
	if err != nil {
		m.failed(err)
		return m.notAsked(to)
	}
	m.admitting.Succeed()
	now := time.Now()
	if a.Admitted {
		m.admittedHere.Add(1)
		m.usage.admitted(now)
		m.refused[to.class].Store(nil)
		return StateOK, 0
	}
	if a.OverShare {
		return StateShare, drainTime(m.cfg, float64(a.Pending), m.flow(now), 0)
	}
	m.refused[to.class].Store(&refusal{at: now, pending: a.Pending})
	return StateFull, roomWait(m.cfg, to, a.Pending, m.flow(now))
}

// notAsked is the answer where Redis could not be asked. A sample can refuse a job, but
// not admit one.
func (m *Monitor) notAsked(to thresholds) (State, time.Duration) {
	if state, wait := judge(m.cfg, to, m.newest.Load(), time.Now()); state == StateFull {
		return state, wait
	}
	return StateUnknown, m.cfg.RetryDelay
}
