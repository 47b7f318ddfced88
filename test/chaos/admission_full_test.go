//go:build chaos

package chaos

import (
	"slices"
	"testing"
	"time"
)

// measurement is one of who is let in.
type measurement struct {
	name, what string
	play       func(testing.TB) admitted
}

// measurements are all of them.
var measurements = []measurement{
	{"admission-bursts", "300 requests at once to three gates, no worker, 20 times", func(tb testing.TB) admitted { return PlayBursts(tb, 20) }},
	{"admission-drained", "more requests than the workers' 50 jobs a second, three gates, 10 s", func(tb testing.TB) admitted { return PlayDrained(tb, 10*time.Second) }},
	{"admission-threshold", "the depth around the limit, a minute", func(tb testing.TB) admitted { return PlayThreshold(tb, time.Minute) }},
	{"retry-after", "150 clients sent away at once by three gates, and come back after Retry-After; 20 jobs a second", func(tb testing.TB) admitted { return PlayRetryAfter(tb, 150) }},
	{"shares", "20 callers ask three gates for a queue that workers drain by 20 jobs a second, one for ten times its share of the drain, the others for 0.8 times theirs; each waits from half to one and a half of its average between two requests; `fair_share: 0.5`; a minute with the greedy one and a minute without it",
		func(tb testing.TB) admitted { return PlayShares(tb, recommendedShare, true, time.Minute) }},
	{"shares-none", "the same without `fair_share`", func(tb testing.TB) admitted { return PlayShares(tb, 0, true, time.Minute) }},
	{"shares-random", "the same with `fair_share: 0.5`, and all come at random (Poisson)", func(tb testing.TB) admitted { return PlayShares(tb, recommendedShare, false, time.Minute) }},
	{"shares-crowd", "300 requests at once of one caller, then one of another, then ten of others at once, three gates, no worker, `fair_share: 1`, 20 times",
		func(tb testing.TB) admitted { return PlayCrowd(tb, 20) }},
	{"shares-counts", "ten callers ask three gates for twice what SAQ's worker does, 20 s; each count is compared with the jobs that wait",
		func(tb testing.TB) admitted { return PlayCounts(tb, NoTrouble, 20*time.Second) }},
	{"shares-retries", "the same, and a tenth of the jobs fails once", func(tb testing.TB) admitted { return PlayCounts(tb, Retries, 20*time.Second) }},
	{"shares-aborts", "the same, and with a tenth of the jobs a waiting one is aborted", func(tb testing.TB) admitted { return PlayCounts(tb, Aborts, 20*time.Second) }},
	{"shares-past", "the same, and a tenth of the jobs comes past the gate", func(tb testing.TB) admitted { return PlayCounts(tb, PastGate, 20*time.Second) }},
	{"shares-time", "Redis's own time of the script that admits, with a share and without, 41 pairs of runs", func(tb testing.TB) admitted { return PlayScriptTime(tb, 41) }},
	{"priority", "a fifth is reserved for premium callers; plain ones ask for 12 times what workers do, premium ones for half of it; a minute",
		func(tb testing.TB) admitted { return PlayPriority(tb, time.Minute) }},
	{"priority-bursts", "300 plain requests at once, then 300 premium ones, no worker, 20 times", func(tb testing.TB) admitted { return PlayTwoBursts(tb, 20) }},
	{"fairness", "20 callers ask three gates without end, a minute", func(tb testing.TB) admitted { return PlayFairness(tb, time.Minute) }},
}

// playAdmission plays those that are chosen, and adds what was seen to the report.
func playAdmission(t *testing.T, r *Report) {
	t.Helper()
	var rows []row
	for _, m := range measurements {
		if !chosen(m.name) {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			f := m.play(t)
			rows = append(rows, row{m.name, m.what, f.seen()})
			t.Log(f.seen())
			for _, wrong := range slices.Concat(f.wrong(), f.late()) {
				t.Error(wrong)
			}
		})
	}
	if len(rows) > 0 {
		r.Add("Who is let in", admissionTable(rows))
	}
}
