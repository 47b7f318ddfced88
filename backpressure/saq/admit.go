package saq

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
)

//go:embed shares.lua
var sharesLua string

//go:embed admission.lua
var admissionLua string

//go:embed admit.lua
var admitLua string

//go:embed places.lua
var placesLua string

var admitScript = redis.NewScript(payloadLua + sharesLua + admissionLua + admitLua)

// PlacesLua defines places for a script that gives places in queues together with something
// else, as Admit gives them alone. See places.lua.
var PlacesLua = payloadLua + sharesLua + admissionLua + placesLua

// Places returns the keys and arguments of the queue for such a script. The limit, the
// share and the caller come with each request.
func (q *Queue) Places(window time.Duration) (keys []string, args []any) {
	return []string{q.queuedKey(), q.activeKey(), q.incompleteKey(), q.windowKey(), q.orderKey(), q.sharesKey()},
		[]any{window.Milliseconds(), q.json}
}

// The outcomes of admit.lua.
const (
	outcomeAdmitted = 1
	outcomeShare    = 4
)

// Admit implements [backpressure.Queue] in one round trip.
func (q *Queue) Admit(ctx context.Context, p backpressure.Place, window time.Duration) (backpressure.Admission, error) {
	keys, args := q.Places(window)
	answer, err := admitScript.Run(ctx, q.rdb, keys, append(args, p.Limit, p.Share, p.Caller)...).Int64Slice()
	if err != nil {
		return backpressure.Admission{}, fmt.Errorf("run admit script: %w", err)
	}
	if len(answer) != 2 {
		return backpressure.Admission{}, fmt.Errorf("read admit answer: %d numbers instead of 2", len(answer))
	}
	return backpressure.Admission{Admitted: answer[0] == outcomeAdmitted, Pending: answer[1], OverShare: answer[0] == outcomeShare}, nil
}
