package property_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/backpressure/saq"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

const (
	places = 5
	window = time.Hour
)

// gate takes tokens and places in a database, in one step or in several.
type gate struct {
	rdb    *redis.Client
	queues map[string]*saq.Queue
	asked  map[string]*quota.Queue // the same for the store
	store  *quota.Redis
}

// names are those of the queues.
var names = []string{"default", "other"}

func newGate(rdb *redis.Client, together bool) *gate {
	g := &gate{rdb: rdb, queues: make(map[string]*saq.Queue), asked: make(map[string]*quota.Queue)}
	for _, name := range names {
		g.queues[name], g.asked[name] = saq.New(name, rdb), new(quota.Queue)
		g.asked[name].Keys, g.asked[name].Args = g.queues[name].Places(window)
	}
	lua := ""
	if together {
		lua = saq.PlacesLua
	}
	g.store = quota.NewRedis(rdb, lua)
	return g
}

// wish is a wish for a place, in any gate; the zero value is none.
type wish struct {
	mode   quota.PlaceMode
	queue  string
	limit  int
	share  float64
	caller string
}

func required(queue string) wish { return wish{mode: quota.PlaceRequired, queue: queue, limit: places} }

// place is the wish as the store takes it.
func (g *gate) place(w wish) quota.Place {
	if w.mode == quota.PlaceNone {
		return quota.Place{}
	}
	return quota.Place{Mode: w.mode, Queue: g.asked[w.queue], Limit: w.limit, Share: w.share, Caller: w.caller}
}

// inSteps is what a request gets where buckets and queue are asked one after the other.
func (g *gate) inSteps(ctx context.Context, req quota.Request, w wish) (quota.Result, error) {
	r, err := g.store.Take(ctx, quota.Request{Buckets: req.Buckets})
	if err != nil || w.mode == quota.PlaceNone || r.Empty() && !req.Recorded {
		return r, err
	}
	a, err := g.queues[w.queue].Admit(ctx, backpressure.Place{Limit: w.limit, Share: w.share, Caller: w.caller}, window)
	if err != nil {
		return r, err
	}
	r.Place, r.Pending = quota.PlaceFull, a.Pending
	if a.OverShare {
		r.Place = quota.PlaceShare
	}
	if a.Admitted {
		r.Place = quota.PlaceGiven
	} else if r.Taken && w.mode != quota.PlaceRecorded {
		r.Taken, r.Debt = false, r.Debt-r.Limit.Interval
		return r, g.store.Refund(ctx, r, req.Buckets)
	}
	return r, nil
}

// TestPlacesAreTakeThenAdmit: what one script gives is what the buckets and the queue would give one after the other,
// with the tokens back where the queue has refused.
func TestPlacesAreTakeThenAdmit(t *testing.T) {
	server := redistest.Start(t)
	together, inSteps := newGate(server.ClientOf(t, 0), true), newGate(server.ClientOf(t, 1), false)
	rapid.Check(t, func(rt *rapid.T) {
		ctx := t.Context()
		both := func(do func(*redis.Client) error) {
			if err := errors.Join(do(together.rdb), do(inSteps.rdb)); err != nil {
				rt.Fatal(err)
			}
		}
		both(func(c *redis.Client) error { return c.FlushDB(ctx).Err() })
		limit := quota.Limit{Capacity: rapid.Int64Range(1, 6).Draw(rt, "capacity"), Interval: time.Hour}
		for i := range rapid.IntRange(1, 40).Draw(rt, "steps") {
			name := rapid.SampledFrom(names).Draw(rt, "queue")
			waiting, unended := "saq:"+name+":queued", "saq:"+name+":incomplete"
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0: // a job arrives
				id := fmt.Sprintf("saq:job:%s:%d", name, i)
				both(func(c *redis.Client) error {
					payload := fmt.Sprintf(`{"function": "f", "kwargs": {}, "queue": "%s", "key": "%d", "queued": %d}`, name, i, time.Now().UnixMilli())
					return errors.Join(c.Set(ctx, id, payload, 0).Err(), c.RPush(ctx, waiting, id).Err(),
						c.ZAdd(ctx, unended, redis.Z{Member: id}).Err())
				})
			case 1: // a worker ends one
				both(func(c *redis.Client) error {
					id, err := c.LPop(ctx, waiting).Result()
					if errors.Is(err, redis.Nil) {
						return nil
					}
					return errors.Join(err, c.ZRem(ctx, unended, id).Err(), c.Del(ctx, id).Err())
				})
			default:
				req := quota.Request{
					Buckets:  []quota.Bucket{{Key: fmt.Sprint("ip", rapid.IntRange(0, 2).Draw(rt, "ip")), Limit: limit}},
					Recorded: rapid.Bool().Draw(rt, "limits recorded"),
				}
				w := wish{
					mode:   rapid.SampledFrom([]quota.PlaceMode{quota.PlaceNone, quota.PlaceRequired, quota.PlaceIfKnown, quota.PlaceRecorded}).Draw(rt, "place"),
					queue:  name,
					limit:  rapid.IntRange(places-1, places).Draw(rt, "limit"),
					share:  rapid.SampledFrom([]float64{0, 0.5, 1, 2}).Draw(rt, "share"),
					caller: fmt.Sprint("ip:", rapid.IntRange(0, 2).Draw(rt, "caller")),
				}
				if rapid.Bool().Draw(rt, "with a user") {
					req.Buckets = append(req.Buckets, quota.Bucket{Key: fmt.Sprint("user", rapid.IntRange(0, 2).Draw(rt, "user")), Limit: limit})
				}
				req.Place = together.place(w)
				a, err := together.store.Take(ctx, req)
				b, err2 := inSteps.inSteps(ctx, req, w)
				if err := errors.Join(err, err2); err != nil {
					rt.Fatal(err)
				}
				if a.Taken != b.Taken || a.Empty() != b.Empty() || a.Remaining() != b.Remaining() || a.Place != b.Place || a.Pending != b.Pending {
					rt.Fatalf("%+v, %+v: together %+v, in steps %+v", req, w, a, b)
				}
			}
		}
		if a, b := kept(rt, together.rdb), kept(rt, inSteps.rdb); !maps.Equal(a, b) {
			rt.Fatalf("together %v, in steps %v", a, b)
		}
	})
}

// kept is what a database has of the buckets, in whole tokens, and of the admissions and shares.
func kept(rt *rapid.T, c *redis.Client) map[string]string {
	ctx := context.Background()
	all := make(map[string]string)
	for _, name := range names {
		for field, value := range c.HGetAll(ctx, "refrakt:gate:admissions:"+name).Val() {
			if field != "start" {
				all[name+":"+field] = value
			}
		}
		all[name+":order"] = fmt.Sprint(c.LRange(ctx, "refrakt:gate:order:"+name, 0, -1).Val())
		all[name+":shares"] = fmt.Sprint(c.ZRangeWithScores(ctx, "refrakt:gate:shares:"+name, 0, -1).Val())
	}
	for _, pattern := range []string{"ip*", "user*"} {
		for _, key := range c.Keys(ctx, pattern).Val() {
			full, err := c.Get(ctx, key).Int64()
			if err != nil {
				rt.Fatal(err)
			}
			all[key] = fmt.Sprint(time.Until(time.Unix(0, full)).Round(time.Hour))
		}
	}
	return all
}

// TestPlacesTogether: of many callers at once as many get through as there are places in each queue, and nobody else
// pays.
func TestPlacesTogether(t *testing.T) {
	g := newGate(redistest.Start(t).Client(t), true)
	limit := quota.Limit{Capacity: 10, Interval: time.Hour}
	var given, taken, charged atomic.Int64
	var asking sync.WaitGroup
	request := func(i int) quota.Request {
		return quota.Request{Buckets: []quota.Bucket{{Key: fmt.Sprint("ip", i), Limit: limit}}, Place: g.place(required(names[i%2]))}
	}
	for i := range 200 {
		asking.Go(func() {
			r, err := g.store.Take(context.WithoutCancel(t.Context()), request(i))
			if err != nil || r.Place != quota.PlaceGiven && r.Place != quota.PlaceFull {
				t.Errorf("%+v, %v", r, err)
			}
			if r.Place == quota.PlaceGiven {
				given.Add(1)
			}
			if r.Taken {
				taken.Add(1)
			}
			if g.rdb.Exists(context.WithoutCancel(t.Context()), fmt.Sprint("ip", i)).Val() == 1 {
				charged.Add(1)
			}
		})
	}
	asking.Wait()
	if want := int64(len(names) * places); given.Load() != want || taken.Load() != want || charged.Load() != want {
		t.Errorf("%d places given, %d tokens taken, %d callers charged; want %d of each", given.Load(), taken.Load(), charged.Load(), want)
	}
}

// TestPlaceOfUnreadableQueue: a queue that can't be read, and admissions that can't be written, keep nobody from its
// tokens but those who need a place.
func TestPlaceOfUnreadableQueue(t *testing.T) {
	for what, spoil := range map[string]func(*redis.Client) error{
		"no list": func(c *redis.Client) error { return c.Set(t.Context(), "saq:default:queued", "no list", 0).Err() },
		"no right to write": func(c *redis.Client) error {
			return c.Do(t.Context(), "ACL", "SETUSER", "default", "-hset").Err()
		},
	} {
		t.Run(what, func(t *testing.T) { placeOfUnreadableQueue(t, spoil) })
	}
}

func placeOfUnreadableQueue(t *testing.T, spoil func(*redis.Client) error) {
	t.Helper()
	g := newGate(redistest.Start(t).Client(t), true)
	if err := spoil(g.rdb); err != nil {
		t.Fatal(err)
	}
	limit := quota.Limit{Capacity: 2, Interval: time.Hour}
	for mode, taken := range map[quota.PlaceMode]bool{quota.PlaceNone: true, quota.PlaceRequired: false, quota.PlaceIfKnown: true, quota.PlaceRecorded: true} {
		key := fmt.Sprint("ip", mode)
		r, err := g.store.Take(t.Context(), quota.Request{Buckets: []quota.Bucket{{Key: key, Limit: limit}}, Place: g.place(wish{mode: mode, queue: "default", limit: places})})
		unknown := r.Place == quota.PlaceUnknown
		if err != nil || r.Taken != taken || unknown != (mode != quota.PlaceNone) {
			t.Errorf("mode %d: %+v, %v; want taken %v", mode, r, err, taken)
		}
		if n := g.rdb.Exists(t.Context(), key).Val(); (n == 1) != taken {
			t.Errorf("mode %d: charged %v, want %v", mode, n == 1, taken)
		}
	}
}

// TestUnreadableQueueAlone: a queue that can't be read closes no other queue that is asked in the same call.
func TestUnreadableQueueAlone(t *testing.T) {
	g := newGate(redistest.Start(t).Client(t), true)
	if err := g.rdb.Set(t.Context(), "saq:default:queued", "no list", 0).Err(); err != nil {
		t.Fatal(err)
	}
	outcomes := g.ask(t, 200, func(i int) wish { return required(names[i%2]) })
	want := map[quota.PlaceOutcome]int{quota.PlaceUnknown: 100, quota.PlaceGiven: places, quota.PlaceFull: 100 - places}
	if !maps.Equal(outcomes, want) {
		t.Errorf("outcomes %v, want %v", outcomes, want)
	}
}

// ask takes tokens and places for many callers at once, each with a bucket of its own.
func (g *gate) ask(t *testing.T, n int, wish func(i int) wish) map[quota.PlaceOutcome]int {
	t.Helper()
	outcomes := make(map[quota.PlaceOutcome]int)
	var mu sync.Mutex
	var asking sync.WaitGroup
	for i := range n {
		asking.Go(func() {
			bucket := quota.Bucket{Key: fmt.Sprint("ip", i), Limit: quota.Limit{Capacity: 10, Interval: time.Hour}}
			r, err := g.store.Take(context.WithoutCancel(t.Context()), quota.Request{Buckets: []quota.Bucket{bucket}, Place: g.place(wish(i))})
			if err != nil || r.Taken != (r.Place == quota.PlaceGiven) {
				t.Errorf("%+v, %v", r, err)
			}
			mu.Lock()
			defer mu.Unlock()
			outcomes[r.Place]++
		})
	}
	asking.Wait()
	return outcomes
}
