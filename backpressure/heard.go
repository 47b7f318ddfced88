package backpressure

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	maxHeard  = 1 << 16          // jobs that words are kept of
	keepHeard = 30 * time.Second // how long a replica that does not count keeps them
	// silence is how long a subscription may be quiet until it must prove that it
	// is alive, and then how long until it is taken for dead.
	silence = 2 * time.Second
)

// heard keeps what SAQ published until it is counted. Each replica listens, so
// that one that takes over knows what was said meanwhile.
type heard struct {
	spoken chan struct{} // has an element when there is something new

	mu     sync.Mutex
	words  map[string][]word
	order  []string // the ids in words, in the order in which they were first heard of
	missed bool     // something may have been said that is not here
}

func newHeard() *heard {
	return &heard{spoken: make(chan struct{}, 1), words: make(map[string][]word)}
}

func (h *heard) add(id string, w word) {
	h.mu.Lock()
	defer h.mu.Unlock()
	words, there := h.words[id]
	// A job that reports progress publishes the same status again and again.
	if n := len(words); n > 0 && words[n-1].status == w.status {
		return
	}
	if !there {
		h.order = append(h.order, id)
		if len(h.order) > maxHeard {
			delete(h.words, h.order[0])
			h.order = h.order[1:]
			h.missed = true
		}
	}
	h.words[id] = append(words, w)
	h.wake()
}

func (h *heard) wake() {
	select {
	case h.spoken <- struct{}{}:
	default:
	}
}

// again wakes whoever counts if there is more than was taken.
func (h *heard) again() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.order) > 0 {
		h.wake()
	}
}

// first takes away the first n ids, in their order, and their words.
func (h *heard) first(n int) ([]string, map[string][]word) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := slices.Clone(h.order[:min(n, len(h.order))])
	return ids, h.remove(ids)
}

// of takes away the words about these ids.
func (h *heard) of(ids []string) map[string][]word {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.remove(ids)
}

func (h *heard) remove(ids []string) map[string][]word {
	taken := make(map[string][]word, len(ids))
	for _, id := range ids {
		if words, ok := h.words[id]; ok {
			taken[id] = words
			delete(h.words, id)
		}
	}
	if len(taken) > 0 {
		h.order = slices.DeleteFunc(slices.Clone(h.order), func(id string) bool { _, gone := taken[id]; return gone })
	}
	return taken
}

// restore puts back what was taken of these ids, before all others and in their
// order: it could not be counted, or there may be more to hear.
func (h *heard) restore(ids []string, taken map[string][]word) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var front []string
	for _, id := range ids {
		words, ok := taken[id]
		if !ok {
			continue
		}
		if _, there := h.words[id]; !there {
			front = append(front, id)
		}
		h.words[id] = append(slices.Clone(words), h.words[id]...)
	}
	h.order = append(front, h.order...)
}

// forget drops what was said before then.
func (h *heard) forget(then time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.order = slices.DeleteFunc(h.order, func(id string) bool {
		words := slices.DeleteFunc(h.words[id], func(w word) bool { return w.at < then.UnixMicro() })
		h.words[id] = words
		if len(words) == 0 {
			delete(h.words, id)
		}
		return len(words) == 0
	})
}

// miss notes that something may have been said unheard.
func (h *heard) miss() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.missed = true
}

// takeMissed says whether that was so since it was asked last.
func (h *heard) takeMissed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	missed := h.missed
	h.missed = false
	return missed
}

// listen subscribes to the statuses of the queue's jobs until ctx ends or the
// subscription breaks.
func (h *heard) listen(ctx context.Context, rdb Redis, queue string, subscribed func()) error {
	sub := rdb.PSubscribe(ctx, jobPattern(queue))
	// Nothing else ends a read early.
	stop := context.AfterFunc(ctx, func() { sub.Close() })
	defer func() {
		if stop() {
			sub.Close()
		}
	}()
	quiet := false
	for {
		message, err := sub.ReceiveTimeout(ctx, silence)
		switch {
		case err == nil:
		case isTimeout(err) && !quiet:
			quiet = true
			if err := sub.Ping(ctx); err != nil {
				return fmt.Errorf("ping the subscription: %w", err)
			}
			continue
		default:
			return fmt.Errorf("receive job statuses: %w", err)
		}
		quiet = false
		switch m := message.(type) {
		case *redis.Subscription:
			h.miss() // what was said before
			subscribed()
		case *redis.Message:
			if s := status(m.Payload); s.known() {
				h.add(m.Channel, word{status: s, at: time.Now().UnixMicro()})
			}
		}
	}
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}
