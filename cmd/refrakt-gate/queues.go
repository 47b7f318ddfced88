package main

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/refrakt-hub/refrakt-gate/authz"
	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/backpressure/saq"
	"github.com/refrakt-hub/refrakt-gate/jobmetrics"
	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/quota"
	"github.com/refrakt-hub/refrakt-gate/telemetry/page"
)

// queues watches the queues of the policies. Queues come and go with the policies.
type queues struct {
	cfg Config
	rdb *redis.Client
	reg prometheus.Registerer
	log *slog.Logger
	// together says that the buckets are in the same Redis, so that tokens and a place are
	// given together.
	together bool

	// run and count start the goroutines of a queue; nil before the gate serves.
	run, count func(start func(context.Context) error) (stop func())

	mu      sync.Mutex               // guards watched; only apply changes it
	watched map[string]*watchedQueue // by name
}

// watchedQueue is one queue.
type watchedQueue struct {
	name    string
	monitor *backpressure.Monitor
	jobs    *jobmetrics.Counter
	places  *quota.Queue // nil: the limiter can't give places
	series  *series
	stop    []func()
}

// apply watches these queues too, and returns them for the decisions. Once the gate serves,
// a new queue is sampled before that, in a second at most. Call settle when no new request
// uses the queues before: it ends those that are gone, and has those that stay show their
// new limits. apply must not be called twice at the same time.
func (q *queues) apply(want []policy.Queue) (in map[string]authz.WatchedQueue, settle func()) {
	next := make(map[string]*watchedQueue)
	in = make(map[string]authz.WatchedQueue)
	var starting sync.WaitGroup
	for _, settings := range want {
		w := q.watched[settings.Name]
		if w == nil {
			w = q.watch(settings)
			if q.run != nil {
				starting.Go(func() { q.start(w) })
			}
		}
		next[settings.Name] = w
		in[settings.Name] = authz.WatchedQueue{Queue: w.monitor.View(limitsOf(settings)), Places: w.places}
	}
	starting.Wait()
	before := q.watched
	q.mu.Lock()
	defer q.mu.Unlock()
	q.watched = next
	return in, func() {
		for _, settings := range want {
			next[settings.Name].monitor.SetLimits(limitsOf(settings))
		}
		for name, w := range before {
			if next[name] == nil {
				w.end()
			}
		}
	}
}

// watch builds the parts of a queue. It starts nothing.
func (q *queues) watch(settings policy.Queue) *watchedQueue {
	log, w := q.log, &watchedQueue{name: settings.Name, series: &series{Registerer: q.reg}}
	var reg prometheus.Registerer = w.series
	if q.cfg.PolicyFile != "" { // without a file there is one queue, whose series have no such label
		reg = prometheus.WrapRegistererWith(prometheus.Labels{queueLabel: settings.Name}, reg)
		log = log.With("queue", settings.Name)
	}
	queue := saq.New(settings.Name, q.rdb)
	if q.together {
		w.places = new(quota.Queue)
		w.places.Keys, w.places.Args = queue.Places(q.cfg.Queue.AdmissionWindow)
	}
	w.monitor = backpressure.NewMonitor(q.cfg.Queue, limitsOf(settings), queue, reg, log)
	w.jobs = jobmetrics.New(q.cfg.Jobs, settings.Name, queue, q.rdb, reg, log)
	return w
}

// queueLabel is the label of the series of a queue.
const queueLabel = "queue"

func limitsOf(q policy.Queue) backpressure.Limits {
	return backpressure.Limits{MaxPending: q.MaxPending, MaxAge: q.MaxAge, Reserve: q.Reserve.Share, FairShare: q.FairShare}
}

// start samples a queue once and starts its goroutines.
func (q *queues) start(w *watchedQueue) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = w.monitor.Sample(ctx) // the goroutine samples again and reports
	q.goOn(w)
}

// goOn starts the goroutines of a queue.
func (q *queues) goOn(w *watchedQueue) {
	w.stop = append(w.stop, q.run(w.monitor.Run))
	// A gate without metrics does not count: what it counted could not be scraped.
	if q.cfg.Telemetry.MetricsEnabled {
		w.stop = append(w.stop, q.count(w.jobs.Run))
	}
}

// end stops the goroutines of a queue, waits for them, and removes its series.
func (w *watchedQueue) end() {
	for _, stop := range w.stop {
		stop()
	}
	w.series.unregister()
}

// serve starts the goroutines of all queues. Those of monitors end with ctx, those that
// count jobs with counting. run starts a goroutine and waits for it at the end.
func (q *queues) serve(ctx, counting context.Context, run func(func() error)) {
	q.run, q.count = stoppable(ctx, run), stoppable(counting, run)
	for _, w := range q.all() {
		q.goOn(w)
	}
}

// stoppable returns a function that has run start a goroutine, which ends with ctx or when
// it is stopped. To stop it is to wait for its end.
func stoppable(ctx context.Context, run func(func() error)) func(func(context.Context) error) func() {
	return func(start func(context.Context) error) func() {
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		run(func() error {
			defer close(done)
			return start(ctx)
		})
		return func() {
			cancel()
			<-done
		}
	}
}

// sample looks at each queue once, at all of them at the same time.
func (q *queues) sample(ctx context.Context) error {
	var sampling errgroup.Group
	for _, w := range q.all() {
		sampling.Go(func() error { return w.monitor.Sample(ctx) })
	}
	return sampling.Wait()
}

// problems lists what keeps the gate from seeing the queues.
func (q *queues) problems() (all []page.Trouble) {
	for _, w := range q.all() {
		of := ""
		if q.cfg.PolicyFile != "" {
			of = w.name
		}
		add := func(kind, text string) {
			if text != "" {
				all = append(all, page.Trouble{Key: kind + " of " + w.name, Queue: of, Text: text})
			}
		}
		if w.monitor.State() == backpressure.StateUnknown {
			add("state", "queue: state unknown, QUEUE_FAILURE_MODE="+string(q.cfg.Authz.QueueFailureMode)+" decides")
		}
		add("use", w.monitor.Problem())
		add("jobs", w.jobs.Problem())
	}
	return all
}

// depths is what the charts of the page show of the queues.
func (q *queues) depths() (all []page.Depth) {
	for _, w := range q.all() {
		pending, age := w.monitor.Depth()
		all = append(all, page.Depth{Queue: w.name, Pending: pending, Age: age})
	}
	return all
}

// all returns the queues by name.
func (q *queues) all() (all []*watchedQueue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(q.watched)) {
		all = append(all, q.watched[name])
	}
	return all
}

// series remembers what is registered, so that it can be unregistered.
type series struct {
	prometheus.Registerer

	mu         sync.Mutex
	collectors []prometheus.Collector
}

// Register implements [prometheus.Registerer].
func (s *series) Register(c prometheus.Collector) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.Registerer.Register(c)
	if err == nil {
		s.collectors = append(s.collectors, c)
	}
	return err
}

// MustRegister implements [prometheus.Registerer].
func (s *series) MustRegister(collectors ...prometheus.Collector) {
	for _, c := range collectors {
		if err := s.Register(c); err != nil {
			panic(err)
		}
	}
}

func (s *series) unregister() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.collectors {
		s.Unregister(c)
	}
	s.collectors = nil
}
