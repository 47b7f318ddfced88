package backpressure

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed admit.lua
var admitSource string

var admitScript = redis.NewScript(admitSource)

// admission is the answer of admit.lua.
type admission struct {
	admitted bool
	pending  int64 // jobs waiting or about to, without this one
}

func admit(ctx context.Context, rdb redis.Scripter, cfg Config) (admission, error) {
	keys := []string{queuedKey(cfg.QueueName), activeKey(cfg.QueueName), incompleteKey(cfg.QueueName), windowKey(cfg.QueueName)}
	answer, err := admitScript.Run(ctx, rdb, keys, cfg.MaxPending, cfg.AdmissionWindow.Milliseconds()).Int64Slice()
	if err != nil {
		return admission{}, fmt.Errorf("run admit script: %w", err)
	}
	if len(answer) != 2 {
		return admission{}, fmt.Errorf("read admit answer: %d numbers instead of 2", len(answer))
	}
	return admission{admitted: answer[0] == 1, pending: answer[1]}, nil
}

// Admit is the last look before a request of the caller's may add a job: StateOK
// means that it was admitted and counted, in one round trip. It never waits for a
// Redis known to be away; the state is then full if the newest sample says so, else
// unknown.
func (m *Monitor) Admit(ctx context.Context, caller string) Verdict {
	state, wait := m.tryAdmit(ctx)
	return m.verdict(caller, state, wait)
}

// tryAdmit is Admit without a caller; the wait is without jitter and retry slot.
func (m *Monitor) tryAdmit(ctx context.Context) (State, time.Duration) {
	if m.cfg.MaxPending == 0 {
		return StateOK, 0
	}
	if ctx.Err() != nil || !m.circuit.closed() {
		return m.unasked()
	}
	var a admission
	err := m.circuit.do(ctx, func(ctx context.Context) (err error) {
		a, err = m.ask(ctx)
		return err
	})
	switch {
	case errors.Is(err, context.Canceled) || refused(err):
		return m.unasked()
	case err != nil:
		m.metrics.admitErrors.Inc()
		m.admitting.failed(err)
		return m.unasked()
	}
	m.admitting.succeeded()
	if a.admitted {
		m.own.Add(1)
		return StateOK, 0
	}
	now := time.Now()
	m.refused.Store(&refusal{at: now, pending: a.pending})
	return StateFull, roomWait(m.cfg, a.pending, m.flow(now))
}

// unasked is the answer where Redis could not be asked. A sample is not enough to
// admit a job by, but a queue that it found full is.
func (m *Monitor) unasked() (State, time.Duration) {
	if state, wait := judge(m.cfg, m.newest.Load(), time.Now()); state == StateFull {
		return state, wait
	}
	return StateUnknown, m.cfg.RetryDelay
}
