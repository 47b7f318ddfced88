package jobmetrics

import (
	"cmp"
	"context"
	"slices"
	"strings"
)

// One step of the walk through all jobs makes so many calls at most, for a Redis may hold
// many keys that are no jobs; and it ends when it has found so many jobs, which are all read.
const (
	scansPerStep = 40
	walkPerStep  = 100
)

// candidate is a job that may have changed.
type candidate struct {
	id   string
	from origin
}

// origin is how a candidate was found. Of the same job, the first origin counts.
type origin int

const (
	fromAll     origin = iota // by the walk through all jobs, after events were missed
	fromEvent                 // by an event
	fromUnended               // by the sweep of those that have not ended
	fromLedger                // by the sweep of the ledger
)

// sweeps walk slowly through all jobs and find what no event told of. A walk that
// is at its end begins anew.
type sweeps struct {
	unended, ledger, all uint64 // cursors
	allRuns              bool   // the walk through all jobs is under way
}

// next returns the next jobs of each walk. gap says that the walk through all jobs
// is to begin; it begins when the one under way has ended. begun says that it did.
func (s *sweeps) next(ctx context.Context, queue Queue, l ledger, gap bool) (found []candidate, begun bool, err error) {
	unended, cursor, err := queue.ScanUnended(ctx, s.unended)
	if err != nil {
		return nil, false, err
	}
	counted, ledgerCursor, err := l.scan(ctx, s.ledger)
	if err != nil {
		return nil, false, err
	}
	all, runs := s.all, s.allRuns
	if begun = gap && !runs; begun {
		all, runs = 0, true
	}
	for i := 0; i < scansPerStep && len(found) < walkPerStep && runs; i++ {
		ids, next, err := queue.ScanAll(ctx, all)
		if err != nil {
			return nil, false, err
		}
		all, runs = next, next != 0
		found = appendCandidates(found, ids, fromAll)
	}
	// Not before all went well, so that no job is left out.
	*s = sweeps{unended: cursor, ledger: ledgerCursor, all: all, allRuns: runs}
	found = appendCandidates(found, unended, fromUnended)
	return distinct(appendCandidates(found, counted, fromLedger)), begun, nil
}

func appendCandidates(list []candidate, ids []string, from origin) []candidate {
	for _, id := range ids {
		list = append(list, candidate{id, from})
	}
	return list
}

// distinct sorts the list by id and origin, and keeps one candidate of each job.
func distinct(list []candidate) []candidate {
	slices.SortFunc(list, func(a, b candidate) int {
		return cmp.Or(strings.Compare(a.id, b.id), cmp.Compare(a.from, b.from))
	})
	return slices.CompactFunc(list, func(a, b candidate) bool { return a.id == b.id })
}
