package jobmetrics

import (
	"context"
	"slices"
	"strings"
)

// scansPerStep bounds the calls that one step of the walk through all jobs makes.
const scansPerStep = 2

// candidate is a job that may have changed.
type candidate struct {
	id string
	// reread says that the job is to be read although it has ended by the ledger: its
	// id may be in use again.
	reread bool
}

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
	for i := 0; i < scansPerStep && runs; i++ {
		ids, next, err := queue.ScanAll(ctx, all)
		if err != nil {
			return nil, false, err
		}
		all, runs = next, next != 0
		found = appendCandidates(found, ids, true)
	}
	// Not before all went well, so that no job is left out.
	*s = sweeps{unended: cursor, ledger: ledgerCursor, all: all, allRuns: runs}
	found = appendCandidates(found, unended, true)
	return distinct(appendCandidates(found, counted, false)), begun, nil
}

func appendCandidates(list []candidate, ids []string, reread bool) []candidate {
	for _, id := range ids {
		list = append(list, candidate{id, reread})
	}
	return list
}

// distinct sorts the list by id. Of those with the same id it keeps one to be reread.
func distinct(list []candidate) []candidate {
	slices.SortFunc(list, func(a, b candidate) int {
		if a.id == b.id && a.reread != b.reread {
			return map[bool]int{true: -1, false: 1}[a.reread]
		}
		return strings.Compare(a.id, b.id)
	})
	return slices.CompactFunc(list, func(a, b candidate) bool { return a.id == b.id })
}
