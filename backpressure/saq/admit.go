package saq

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
)

//go:embed admit.lua
var admitLua string

var admitScript = redis.NewScript(payloadLua + admitLua)

// Admit implements [backpressure.Queue] in one round trip.
func (q *Queue) Admit(ctx context.Context, maxPending int, window time.Duration) (backpressure.Admission, error) {
	keys := []string{q.queuedKey(), q.activeKey(), q.incompleteKey(), q.windowKey()}
	answer, err := admitScript.Run(ctx, q.rdb, keys, maxPending, window.Milliseconds(), q.json).Int64Slice()
	if err != nil {
		return backpressure.Admission{}, fmt.Errorf("run admit script: %w", err)
	}
	if len(answer) != 2 {
		return backpressure.Admission{}, fmt.Errorf("read admit answer: %d numbers instead of 2", len(answer))
	}
	return backpressure.Admission{Admitted: answer[0] == 1, Pending: answer[1]}, nil
}
