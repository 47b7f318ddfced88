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

// PlacesLua defines queue for a script that gives places in queues together with something
// else, as Admit gives them alone. See places.lua.
var PlacesLua = payloadLua + admissionLua + placesLua

// Places returns the keys and arguments of the queue for such a script. The limit, the
// share and the caller come with each request.
func (q *Queue) Places(window time.Duration) (keys []string, args []any) {
	return q.admitKeys(), []any{window.Milliseconds(), q.json}
}

func (q *Queue) admitKeys() []string {
	return []string{q.queuedKey(), q.activeKey(), q.incompleteKey(), q.windowKey()}
}

func (q *Queue) admitArgs(maxPending int, window time.Duration) []any {
	return []any{maxPending, window.Milliseconds(), q.json}
}

// Admit implements [backpressure.Queue] in one round trip.
func (q *Queue) Admit(ctx context.Context, p backpressure.Place, window time.Duration) (backpressure.Admission, error) {
	answer, err := admitScript.Run(ctx, q.rdb, q.admitKeys(), q.admitArgs(p.Limit, window)...).Int64Slice()
	if err != nil {
		return backpressure.Admission{}, fmt.Errorf("run admit script: %w", err)
	}
	if len(answer) != 2 {
		return backpressure.Admission{}, fmt.Errorf("read admit answer: %d numbers instead of 2", len(answer))
	}
	return backpressure.Admission{Admitted: answer[0] == 1, Pending: answer[1]}, nil
}
