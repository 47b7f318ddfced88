package quota

import (
	"errors"
	"time"
)

// What take.lua is asked, and what it answers.

// evalsha appends the arguments of the command that runs take.lua for a batch.
func (s *Redis) evalsha(args []any, batch []*member) []any {
	return s.appendArgs(args, "evalsha", s.script.Hash(), batch)
}

// appendArgs appends the arguments of a command that runs take.lua for a batch.
func (s *Redis) appendArgs(args []any, command, script string, batch []*member) []any {
	args = append(args, command, script, 0)
	for _, m := range batch {
		for i := range m.req.Buckets {
			args = append(args, &m.req.Buckets[i].Key) // a pointer costs no allocation
		}
	}
	var few [4]*Queue // most batches have no more
	queues := queuesOf(few[:0], batch)
	for _, q := range queues {
		for i := range q.Keys {
			args = append(args, &q.Keys[i])
		}
	}
	args[2] = len(args) - 3
	args = append(args, len(queues), nil)
	runs, at := 0, len(args)-1
	for len(batch) > 0 {
		n := runOf(batch)
		args = appendRun(args, batch[:n], queues)
		runs, batch = runs+1, batch[n:]
	}
	args[at] = runs
	for _, q := range queues {
		args = append(args, q.Args...)
	}
	return args
}

// queuesOf appends the queues that the requests of a batch ask for places, each once.
func queuesOf(queues []*Queue, batch []*member) []*Queue {
	for _, m := range batch {
		if q := m.req.Place.Queue; q != nil && numberOf(q, queues) == 0 {
			queues = append(queues, q)
		}
	}
	return queues
}

// numberOf returns the number of a queue, from 1; 0 if it is not there.
func numberOf(q *Queue, queues []*Queue) int {
	for i, other := range queues {
		if q.same(other) {
			return i + 1
		}
	}
	return 0
}

// runOf is how many requests, from the first on, have the same shape.
func runOf(batch []*member) int {
	first := &batch[0].req
	for i, m := range batch {
		if m.req.Recorded != first.Recorded || !m.req.Place.sameShape(first.Place) || len(m.req.Buckets) != len(first.Buckets) {
			return i
		}
		for j := range first.Buckets {
			if b := m.req.Buckets[j]; b.Limit != first.Buckets[j].Limit || b.MaxDebt != first.Buckets[j].MaxDebt {
				return i
			}
		}
	}
	return len(batch)
}

// appendRun appends a run: requests with the same shape.
func appendRun(args []any, run []*member, queues []*Queue) []any {
	req := &run[0].req
	enforced := 1
	if req.Recorded {
		enforced = 0
	}
	args = append(args, len(run), len(req.Buckets), enforced, int(req.Place.Mode))
	if req.Place.Mode != PlaceNone {
		args = append(args, numberOf(req.Place.Queue, queues), req.Place.Limit, req.Place.share())
	}
	for _, b := range req.Buckets {
		args = append(args, b.Limit.Interval.Nanoseconds(), b.Limit.Span().Nanoseconds(), b.maxDebt().Nanoseconds())
	}
	if req.Place.Mode != PlaceNone && req.Place.Share > 0 {
		for _, m := range run {
			args = append(args, &m.req.Place.Caller)
		}
	}
	return args
}

// readAnswer sets the results of a batch from what take.lua returned.
func readAnswer(answer []int64, batch []*member) error {
	for _, m := range batch {
		n := 3
		if m.req.Place.Mode != PlaceNone {
			n = 5
		}
		if len(answer) < n || answer[1] < 1 || int(answer[1]) > len(m.req.Buckets) {
			return errors.New("the script did not answer as it should")
		}
		bucket := int(answer[1]) - 1
		m.result = Result{Taken: answer[0] == 1, Bucket: bucket, Limit: m.req.Buckets[bucket].Limit, Debt: time.Duration(answer[2])}
		if n == 5 {
			m.result.Place, m.result.Pending = PlaceOutcome(answer[3]), answer[4]
		}
		answer = answer[n:]
	}
	if len(answer) > 0 {
		return errors.New("the script answered more than it was asked")
	}
	return nil
}
