package measure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/process"
)

// Plan says how a comparison is measured.
type Plan struct {
	Rounds  int
	Measure time.Duration // of each run
	// Foreign is how many cores other processes may use. A run in which they used more is repeated, but no more than
	// a third of all runs: on a machine that is never quiet, repetitions are in vain.
	Foreign  float64
	Progress io.Writer
}

// tries is how often a run is made at most.
const tries = 3

// mostWrong is how many runs of a comparison may be repeated because of wrong answers: one, and one more for each 20
// runs.
func mostWrong(runs int) int { return 1 + runs/20 }

// Compare lets the contenders take turns, in reversed order every second round.
func (p Plan) Compare(ctx context.Context, g *process.Group, name string, inFlight int, contenders []Contender) (*Table, error) {
	t := &Table{InFlight: inFlight, Contenders: contenders, Rounds: make([][]Sample, p.Rounds)}
	repetitions := (p.Rounds*len(contenders) + 2) / 3
	for round := range t.Rounds {
		t.Rounds[round] = make([]Sample, len(contenders))
		order := make([]int, len(contenders))
		for i := range order {
			order[i] = i
		}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, i := range order {
			c := &contenders[i]
			fmt.Fprintf(p.Progress, "%s, %d in flight, round %d of %d: %s\n", name, inFlight, round+1, p.Rounds, c.Name)
			s, wrong, err := p.quiet(ctx, g, c, inFlight, &repetitions)
			if err != nil {
				return nil, fmt.Errorf("%s, %s, %d in flight: %w", name, c.Name, inFlight, err)
			}
			if t.Wrong += len(wrong); t.Wrong > mostWrong(p.Rounds*len(contenders)) {
				return nil, fmt.Errorf("%s, %d in flight: %d runs were repeated, the last ones of %s: %w", name, inFlight, t.Wrong, c.Name, errors.Join(wrong...))
			}
			t.Rounds[round][i] = s
			if s.Foreign > p.Foreign {
				t.Noisy++
			}
		}
	}
	return t, nil
}

// quiet repeats a run while other processes disturb it, and returns the one that was disturbed least. A run with wrong
// answers is repeated too, since a machine that stalls makes the gate answer without Redis; wrong has their errors.
func (p Plan) quiet(ctx context.Context, g *process.Group, c *Contender, inFlight int, repetitions *int) (best Sample, wrong []error, err error) {
	found := false
	for range tries {
		s, runErr := c.For(ctx, g, inFlight, p.Measure)
		switch {
		case runErr != nil && !errors.Is(runErr, errWrongAnswers):
			return s, wrong, runErr
		case runErr != nil:
			wrong = append(wrong, runErr)
			continue
		case !found || s.Foreign < best.Foreign:
			found, best = true, s
		}
		if best.Foreign <= p.Foreign || *repetitions == 0 {
			break
		}
		*repetitions--
	}
	if !found {
		return best, wrong, errors.Join(wrong...)
	}
	return best, wrong, nil
}
