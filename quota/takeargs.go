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
	place := placeOf(batch)
	if place.Queue != nil {
		for i := range place.Queue.Keys {
			args = append(args, &place.Queue.Keys[i])
		}
	}
	args[2] = len(args) - 3
	runs, at := 0, len(args)
	args = append(args, nil)
	for len(batch) > 0 {
		n := runOf(batch)
		args = appendRun(args, n, batch[0].req)
		runs, batch = runs+1, batch[n:]
	}
	args[at] = runs
	if place.Queue != nil {
		args = append(append(args, place.Limit), place.Queue.Args...)
	}
	return args
}

// placeOf returns a place that the requests of a batch ask for.
func placeOf(batch []*member) Place {
	for _, m := range batch {
		if m.req.Place.Queue != nil {
			return m.req.Place
		}
	}
	return Place{}
}

// runOf is how many requests, from the first on, have the same shape.
func runOf(batch []*member) int {
	first := &batch[0].req
	for i, m := range batch {
		if m.req.Recorded != first.Recorded || m.req.Place != first.Place || len(m.req.Buckets) != len(first.Buckets) {
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

func appendRun(args []any, n int, req Request) []any {
	enforced := 1
	if req.Recorded {
		enforced = 0
	}
	args = append(args, n, len(req.Buckets), enforced, int(req.Place.Mode))
	for _, b := range req.Buckets {
		args = append(args, b.Limit.Interval.Nanoseconds(), b.Limit.Span().Nanoseconds(), b.maxDebt().Nanoseconds())
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
