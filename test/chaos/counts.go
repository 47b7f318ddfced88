package chaos

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/backpressure/saq"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// Trouble is what makes the counts of a fair share err. Of all jobs, a tenth is concerned.
type Trouble string

// The troubles.
const (
	NoTrouble Trouble = "none"
	Retries   Trouble = "retries" // the job fails, and waits again
	Aborts    Trouble = "aborts"  // a waiting job is aborted
	PastGate  Trouble = "past the gate"
)

// Counts is how the gate's counts of waiting jobs differ from those that really wait.
type Counts struct {
	Trouble   Trouble
	Looks     int
	Jobs      int
	Sum       float64       // of the counts, less the number of jobs, on average
	High, Low int           // by how much a caller's count was too high or too low at most
	Wrong     float64       // part of the counts that were wrong
	Errs      float64       // by how much a count was wrong on average
	LongHigh  time.Duration // for how long at most a count was too high, or too low, without a break
	LongLow   time.Duration
	Over      int // by how many jobs a caller had more than its share when it was admitted, at most
}

// PlayCounts has ten callers come twice as fast as SAQ's worker runs jobs, 20 a second, through three gates.
func PlayCounts(tb testing.TB, trouble Trouble, d time.Duration) Counts {
	tb.Helper()
	const callers, perSecond, share = 10, 40, 1.0
	server := redistest.Start(tb)
	jobs := startJobs(tb, server)
	var gates []*saq.Queue
	for range 3 {
		gates = append(gates, saq.New("default", server.Client(tb)))
	}
	rdb := server.Client(tb)
	random := rand.New(rand.NewPCG(3, 5)) //nolint:gosec // no secret
	out := Counts{Trouble: trouble}
	since := make(map[string]time.Time) // a count is wrong, by caller and sign
	for begin := time.Now(); time.Since(begin) < d; e2e.Pass(tb, time.Second/perSecond) {
		w := look(tb, rdb)
		out.add(w, since)
		caller := fmt.Sprint("ip-", random.IntN(callers))
		concerned := random.IntN(10) == 0
		if trouble == PastGate && concerned {
			jobs.enqueue("past-gate", 0)
			continue
		}
		a, err := gates[random.IntN(3)].Admit(tb.Context(), backpressure.Place{Limit: maxPending, Share: share, Caller: caller}, 500*time.Millisecond)
		must(tb, err)
		if !a.Admitted {
			continue
		}
		// Workers may have taken jobs since the look: then there was more room.
		out.Over = max(out.Over, w.waiting[caller]+1-int(share*float64(maxPending-int(a.Pending)-1)))
		failures := 0
		if trouble == Retries && concerned {
			failures = 1
		}
		out.Jobs++
		jobs.enqueue(caller, failures)
		if trouble == Aborts && concerned && len(w.ids) > 0 {
			jobs.tell("abort " + strings.TrimPrefix(w.ids[random.IntN(len(w.ids))], "saq:job:default:"))
		}
	}
	return out
}

// whose is what waits, and what the gates count of it.
type whose struct {
	ids              []string
	waiting, counted map[string]int
}

// look reads both at one time. A count that would be cut before it matters is cut.
func look(tb testing.TB, rdb *redis.Client) whose {
	tb.Helper()
	var ids, order *redis.StringSliceCmd
	_, err := rdb.TxPipelined(tb.Context(), func(p redis.Pipeliner) error {
		ids = p.LRange(tb.Context(), queued, 0, -1)
		order = p.LRange(tb.Context(), "refrakt:gate:order:default", 0, -1)
		return nil
	})
	must(tb, err)
	w := whose{ids: ids.Val(), waiting: make(map[string]int), counted: make(map[string]int)}
	for _, id := range w.ids {
		caller, _, _ := strings.Cut(strings.TrimPrefix(id, "saq:job:default:"), "/")
		w.waiting[caller]++
	}
	delete(w.waiting, "past-gate")
	listed := order.Val()
	for _, caller := range listed[max(0, len(listed)-len(w.ids)):] {
		w.counted[caller]++
	}
	return w
}

func (c *Counts) add(w whose, since map[string]time.Time) {
	now := time.Now()
	sum, wrong, errs, n := 0, 0, 0, 0
	for i := range 10 {
		caller := fmt.Sprint("ip-", i)
		e := w.counted[caller] - w.waiting[caller]
		c.High, c.Low = max(c.High, e), max(c.Low, -e)
		for sign, is := range map[string]bool{"+": e > 0, "-": e < 0} {
			key := sign + caller
			begin, was := since[key]
			switch {
			case !is:
				delete(since, key)
			case !was:
				since[key] = now
			case sign == "+":
				c.LongHigh = max(c.LongHigh, now.Sub(begin))
			default:
				c.LongLow = max(c.LongLow, now.Sub(begin))
			}
		}
		if e != 0 {
			wrong++
		}
		sum, errs, n = sum+e, errs+max(e, -e), n+1
	}
	looks := float64(c.Looks)
	mean := func(before float64, x float64) float64 { return (before*looks + x) / (looks + 1) }
	c.Sum, c.Wrong, c.Errs = mean(c.Sum, float64(sum)), mean(c.Wrong, float64(wrong)/float64(n)), mean(c.Errs, float64(errs)/float64(n))
	c.Looks++
}

// jobs is a process that enqueues and runs jobs by SAQ.
type jobs struct {
	tb  testing.TB
	in  io.Writer
	out *bufio.Scanner
	n   int
}

func startJobs(tb testing.TB, server *redistest.Server) *jobs {
	tb.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(tb.Context()))
	//nolint:gosec // the test's own program
	cmd := exec.CommandContext(ctx, e2e.Tool(tb, "python"), filepath.Join(e2e.Root(), "test", "chaos", "testdata", "saq_jobs.py"), server.URL(), "0.2")
	in, err := cmd.StdinPipe()
	must(tb, err)
	out, err := cmd.StdoutPipe()
	must(tb, err)
	must(tb, cmd.Start())
	tb.Cleanup(func() {
		_ = in.Close()
		stop()
		_ = cmd.Wait()
	})
	return &jobs{tb: tb, in: in, out: bufio.NewScanner(out)}
}

// tell has one thing done and waits for that.
func (j *jobs) tell(line string) {
	j.tb.Helper()
	_, err := fmt.Fprintln(j.in, line)
	must(j.tb, err)
	if !j.out.Scan() {
		j.tb.Fatalf("SAQ has ended: %v", j.out.Err())
	}
}

func (j *jobs) enqueue(caller string, failures int) {
	j.tb.Helper()
	j.n++
	j.tell(fmt.Sprintf("enqueue %s/%d %d", caller, j.n, failures))
}

func (c Counts) seen() string {
	return fmt.Sprintf("%.1f %% of the counts were wrong, by %.2f jobs on average over all; at most %d too high (for %v), %d too low (for %v); "+
		"the counts of all callers were together %.1f above the truth; a caller was admitted with at most %d jobs more than its share",
		100*c.Wrong, c.Errs, c.High, round(c.LongHigh), c.Low, round(c.LongLow), c.Sum, max(0, c.Over))
}

func (c Counts) wrong() (wrong []string) {
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	switch {
	case c.Looks == 0 || c.Jobs < 20:
		add("%d jobs: nothing was put to the test", c.Jobs)
	case c.Trouble == NoTrouble && c.High+c.Low > 0:
		add("a count was %d too high or %d too low, and nothing was to make it wrong", c.High, c.Low)
	case c.Trouble == PastGate && c.Low > 0:
		add("a count was %d too low", c.Low)
	case c.Trouble != NoTrouble && c.High == 0:
		add("no count was wrong")
	}
	return wrong
}

// late is for figures that depend on the machine; these don't.
func (Counts) late() []string { return nil }
