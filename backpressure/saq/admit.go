package saq

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
)

//go:embed admission.lua
var admissionLua string

//go:embed admit.lua
var admitLua string

//go:embed places.lua
var placesLua string

var admitScript = redis.NewScript(payloadLua + admissionLua + admitLua)

// Places returns what a script needs that gives places in the queue together with
// something else, as Admit gives them alone: Lua that defines queue, and the last keys and
// arguments. See places.lua.
func (q *Queue) Places(maxPending int, window time.Duration) (lua string, keys []string, args []any) {
	return payloadLua + admissionLua + placesLua, q.admitKeys(), q.admitArgs(maxPending, window)
}

func (q *Queue) admitKeys() []string {
	return []string{q.queuedKey(), q.activeKey(), q.incompleteKey(), q.windowKey()}
}

func (q *Queue) admitArgs(maxPending int, window time.Duration) []any {
	return []any{maxPending, window.Milliseconds(), q.json}
}

// Admit implements [backpressure.Queue] in one round trip.
func (q *Queue) Admit(ctx context.Context, maxPending int, window time.Duration) (backpressure.Admission, error) {
	answer, err := admitScript.Run(ctx, q.rdb, q.admitKeys(), q.admitArgs(maxPending, window)...).Int64Slice()
	if err != nil {
		return backpressure.Admission{}, fmt.Errorf("run admit script: %w", err)
	}
	if len(answer) != 2 {
		return backpressure.Admission{}, fmt.Errorf("read admit answer: %d numbers instead of 2", len(answer))
	}
	return backpressure.Admission{Admitted: answer[0] == 1, Pending: answer[1]}, nil
}
