package load

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/replay"
)

var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// goodRun is a run in which all is as it must be.
func goodRun() *Run {
	r := &Run{Start: begin, Version: "v1", CPUs: 2, Jobs: Jobs{Enqueued: map[string]int{}, Extra: 3, RunningWhenStalled: 8, Failed: 8}}
	at := begin
	for _, phase := range Plan() {
		p := Played{Phase: phase, Start: at, MaxDepth: 10}
		debt, last := map[int]time.Duration{}, map[int]time.Time{}
		for n := range phase.Requests {
			a := Answer{Request: phase.Ask(n), Sent: at.Add(phase.due(n))}
			a.Done = a.Sent.Add(10 * time.Millisecond)
			a.Code = map[string]int{policyRun: 202, policyAssistant: 200}[a.Policy]
			switch phase.Name {
			case Burst:
				b := buckets[a.Policy]
				debt[a.User] = max(0, debt[a.User]-a.Sent.Sub(last[a.User]))
				last[a.User] = a.Sent
				if debt[a.User] += b.interval; debt[a.User] > time.Duration(b.capacity)*b.interval {
					debt[a.User] -= b.interval
					refuse(&a, 429, "Too Many Requests", 2)
				}
			case Fill:
				if n > 200 {
					refuse(&a, 503, "The job queue is full. Please retry later.", 30)
				}
			case Stall:
				refuse(&a, 503, "The job queue is full. Please retry later.", 36)
			case Recovery:
				if n < 400 {
					refuse(&a, 503, "The job queue is slow: jobs wait too long. Please retry later.", 50)
				}
			}
			p.Answers = append(p.Answers, a)
		}
		p.End = at.Add(phase.Duration())
		switch phase.Name {
		case Fill:
			p.MaxDepth = maxPending
		case Stall:
			p.MinDepth, p.MaxDepth = maxPending, maxPending
			r.Age = append(r.Age, Point{p.Start, 50}, Point{p.End, 280})
			r.LiveWorkers = append(r.LiveWorkers, Point{p.Start, 2}, Point{p.End, 0})
			for _, alert := range stallAlerts {
				r.Firing = append(r.Firing, Span{alert, p.Start.Add(time.Minute), p.End.Add(time.Minute)})
			}
		}
		if phase.Name == Fill {
			for _, alert := range queueAlerts {
				r.Firing = append(r.Firing, Span{alert, p.Start.Add(2 * time.Minute), p.End})
			}
		}
		r.Phases = append(r.Phases, p)
		at = p.End.Add(5 * time.Second)
	}
	r.End = at
	r.Depth = []Point{{begin, 0}, {r.End, 40}}
	tallyUp(r)
	return r
}

func refuse(a *Answer, code int, detail string, retry int) {
	a.Code, a.Detail, a.RetryAfter = code, detail, retry
}

// admit is the same request, let in.
func admit(a Answer) Answer {
	a.Code, a.Detail, a.RetryAfter = map[string]int{policyRun: 202, policyAssistant: 200}[a.Policy], "", 0
	return a
}

func admitAll(p *Played, policy string) {
	for i, a := range p.Answers {
		if a.Policy == policy {
			p.Answers[i] = admit(a)
		}
	}
}

// tallyUp makes what the gates counted agree with the answers.
func tallyUp(r *Run) {
	j := &r.Jobs
	j.Enqueued = map[string]int{"api": j.Extra}
	total := j.Extra
	for i := range r.Phases {
		p := &r.Phases[i]
		p.Decisions = map[Decision]int{}
		for _, a := range p.Answers {
			p.Decisions[Decision{a.Policy, reason(a)}]++
			if a.job() {
				j.Enqueued[map[string]string{policyRun: "api", policyAssistant: "assistant"}[a.Policy]]++
				total++
			}
		}
	}
	j.Started, j.Waits, j.Ended = total, total, total
	r.Decided, r.Replay = map[Decision]int{{"unknown", "unknown_policy"}: 0}, replay.Report{Compared: 10_000, Same: 9_990}
	for _, p := range r.Phases {
		for d, n := range p.Decisions {
			r.Decided[d] += n
		}
	}
	for _, policy := range []string{policyRun, policyAssistant} {
		h := replay.Hour{Policy: policy}
		for d, n := range r.Decided {
			switch {
			case d.Policy != policy || d.Reason == "ok":
			case d.Reason == "rate_limited":
				h.Recorded += n
				h.Refused += n
			default:
				h.Queue += n
			}
		}
		r.Replay.Hours = append(r.Replay.Hours, h)
	}
}

func failed(checks []Check) (what []string) {
	for _, c := range checks {
		if !c.OK {
			what = append(what, c.where()+": "+c.What)
		}
	}
	return what
}

func TestJudgeGoodRun(t *testing.T) {
	t.Parallel()
	if f := failed(Judge(goodRun())); len(f) > 0 {
		t.Errorf("differs in %q", f)
	}
}

// TestJudgeSeesWhatIsWrong breaks a good run in one way after the other; each must be noticed.
func TestJudgeSeesWhatIsWrong(t *testing.T) {
	t.Parallel()
	answer := func(phase string, change func(a *Answer)) func(*Run) {
		return func(r *Run) {
			p := r.phase(phase)
			change(&p.Answers[len(p.Answers)-1])
			tallyUp(r)
		}
	}
	first := func(phase string, is func(Answer) bool) func(*Run) *Answer {
		return func(r *Run) *Answer {
			p := r.phase(phase)
			for i := range p.Answers {
				if is(p.Answers[i]) {
					return &p.Answers[i]
				}
			}
			panic("no such answer")
		}
	}
	played := func(r *Run, phase string) *Played {
		for i := range r.Phases {
			if r.Phases[i].Name == phase {
				return &r.Phases[i]
			}
		}
		panic("no such phase")
	}
	alert := func(phase, name string) func(*Run) {
		return func(r *Run) {
			p := r.phase(phase)
			r.Firing = append(r.Firing, Span{name, p.Start.Add(time.Second), p.Start.Add(2 * time.Second)})
		}
	}
	type fault struct {
		change func(*Run)
		want   string
	}
	faults := map[string]fault{
		"a request got lost":      {func(r *Run) { p := played(r, Normal); p.Answers = p.Answers[1:]; tallyUp(r) }, "normal: requests sent"},
		"refused in normal":       {answer(Normal, func(a *Answer) { refuse(a, 429, "Too Many Requests", 3) }), "normal: codes"},
		"503 in burst":            {answer(Burst, func(a *Answer) { refuse(a, 503, "The job queue is full. Please retry later.", 30) }), "burst: codes"},
		"429 in fill":             {answer(Fill, func(a *Answer) { refuse(a, 429, "Too Many Requests", 3) }), "fill: codes"},
		"admitted in stall":       {answer(Stall, func(a *Answer) { *a = Answer{Request: a.Request, Sent: a.Sent, Done: a.Done, Code: 200} }), "stall: codes"},
		"500 in recovery":         {answer(Recovery, func(a *Answer) { a.Code = 500 }), "recovery: codes"},
		"counted otherwise":       {func(r *Run) { played(r, Normal).Decisions[Decision{policyRun, "ok"}]++ }, "normal: gates' decisions on `/run`"},
		"let in unseen":           {func(r *Run) { played(r, Fill).Decisions[Decision{policyAssistant, "queue_unknown"}]++ }, "fill: gates' decisions on `/assistant`"},
		"no Retry-After":          {answer(Stall, func(a *Answer) { a.RetryAfter = 0 }), "stall: answers whose Retry-After"},
		"Retry-After when let in": {answer(Normal, func(a *Answer) { a.RetryAfter = 1 }), "normal: answers whose Retry-After"},
		"429 told to wait too long": {func(r *Run) {
			first(Burst, func(a Answer) bool { return a.Code == 429 && a.Policy == policyRun })(r).RetryAfter = 11
		}, "burst: answers whose Retry-After"},
		"an alert in normal":   {alert(Normal, "GateDown"), "normal: alerts that fire"},
		"an alert in recovery": {alert(Recovery, "GateRedisErrors"), "recovery: alerts that fire besides"},
		"no alert in fill":     {func(r *Run) { r.Firing = r.Firing[len(queueAlerts):] }, "fill: alerts that fire"},
		"an alert missing in stall": {func(r *Run) {
			for i := range r.Firing {
				if r.Firing[i].Alert == "QueueAgeAtLimit" {
					r.Firing[i].Alert = "QueueAgeNearLimit"
				}
			}
		}, "stall: alerts that fire"},
		"an alert at the end": {func(r *Run) {
			r.Firing[len(r.Firing)-1].To = r.End
		}, "whole run: alerts that fire at the end"},
		"a token too many": {func(r *Run) {
			a := first(Burst, func(a Answer) bool { return a.Code == 429 && a.Policy == policyRun })(r)
			*a = admit(*a)
			tallyUp(r)
		}, "burst: `/run` admitted, each user"},
		"some tokens too few": {func(r *Run) {
			for range 4 {
				refuse(first(Burst, func(a Answer) bool { return a.admitted() && a.User == 10 })(r), 429, "Too Many Requests", 2)
			}
			tallyUp(r)
		}, "burst: `/assistant` admitted, each user"},
		"one over the limit":    {func(r *Run) { played(r, Fill).MaxDepth = maxPending + 1 }, "fill: greatest depth"},
		"the limit not reached": {func(r *Run) { played(r, Fill).MaxDepth = maxPending - 1 }, "fill: greatest depth"},
		"a run too many": {func(r *Run) {
			a := first(Fill, func(a Answer) bool { return a.Code == 503 && a.Policy == policyRun })
			p := played(r, Fill)
			most := maxPending + slots*(1+int(p.End.Sub(p.Start).Seconds()/fillSeconds))
			for count(p.Answers, Answer.job) <= most {
				*a(r) = admit(*a(r))
			}
			tallyUp(r)
		}, "fill: runs admitted"},
		"no run refused":       {func(r *Run) { admitAll(played(r, Fill), policyRun); tallyUp(r) }, "fill: `/run` refused"},
		"no assistant refused": {func(r *Run) { admitAll(played(r, Fill), policyAssistant); tallyUp(r) }, "fill: `/assistant` refused"},
		"too few admitted": {func(r *Run) {
			p := played(r, Fill)
			for i := range p.Answers {
				if p.Answers[i].job() && i > 90 {
					refuse(&p.Answers[i], 503, "The job queue is full. Please retry later.", 30)
				}
			}
			tallyUp(r)
		}, "fill: runs admitted"},
		"the depth moved in stall": {func(r *Run) { played(r, Stall).MinDepth-- }, "stall: depth"},
		"the age stayed low":       {func(r *Run) { r.Age = r.Age[:1] }, "stall: greatest age"},
		"workers alive in stall":   {func(r *Run) { r.LiveWorkers[1].Value = 1 }, "stall: live workers"},
		"never slow in recovery": {func(r *Run) {
			p := played(r, Recovery)
			for i := range p.Answers {
				if !p.Answers[i].admitted() {
					p.Answers[i].Detail = "The job queue is full. Please retry later."
				}
			}
			tallyUp(r)
		}, "recovery: refused for the slow queue"},
		"refused at the end":       {answer(Recovery, func(a *Answer) { refuse(a, 503, "The job queue is full. Please retry later.", 30) }), "recovery: refused in the last minute"},
		"a job counted twice":      {func(r *Run) { r.Jobs.Enqueued["api"]++ }, "whole run: jobs enqueued"},
		"a start not counted":      {func(r *Run) { r.Jobs.Started-- }, "whole run: jobs started"},
		"a wait not observed":      {func(r *Run) { r.Jobs.Waits-- }, "whole run: jobs started"},
		"an end not counted":       {func(r *Run) { r.Jobs.Ended-- }, "whole run: jobs ended"},
		"a job failed":             {func(r *Run) { r.Jobs.Failed++ }, "whole run: jobs failed"},
		"a job is left":            {func(r *Run) { r.Jobs.PendingAtEnd = 1 }, "whole run: jobs left"},
		"a refusal without a line": {func(r *Run) { r.Replay.Hours[0].Queue-- }, "whole run: refusals that"},
		"a replay refuses fewer":   {func(r *Run) { r.Replay.Hours[0].Refused -= 10 }, "whole run: refused again by the buckets of `/run`"},
		"a replay refuses more":    {func(r *Run) { r.Replay.Hours[1].Refused += 10 }, "whole run: refused again by the buckets of `/assistant`"},
		"a replay says otherwise":  {func(r *Run) { r.Replay.Same-- }, "whole run: verdicts of the buckets"},
		"the run took too long":    {func(r *Run) { r.Start = r.Start.Add(-time.Hour) }, "whole run: length"},
	}
	// What is expected of every phase.
	for _, p := range Plan() {
		faults["a request lost in "+p.Name] = fault{func(r *Run) { p := played(r, p.Name); p.Answers = p.Answers[1:]; tallyUp(r) }, p.Name + ": requests sent"}
		faults["no answer in "+p.Name] = fault{answer(p.Name, func(a *Answer) { a.Code = 0 }), p.Name + ": codes"}
		faults["another wait told in "+p.Name] = fault{answer(p.Name, func(a *Answer) { a.RetryAfter = 721 }), p.Name + ": answers whose Retry-After"}
		faults["another alert in "+p.Name] = fault{alert(p.Name, "GateDown"), p.Name + ": alerts that fire"}
		for _, policy := range []string{policyRun, policyAssistant} {
			want := p.Name + ": gates' decisions on `/" + policy + "`"
			faults[policy+" refused by Envoy itself in "+p.Name] = fault{func(r *Run) {
				a := first(p.Name, func(a Answer) bool { return a.Policy == policy })(r)
				refuse(a, 503, "", 0)
			}, want}
		}
	}

	unseen := map[string]bool{}
	for _, c := range Judge(goodRun()) {
		unseen[c.where()+": "+c.What] = true
	}
	for name, c := range faults {
		r := goodRun()
		c.change(r)
		found, f := false, failed(Judge(r))
		for _, what := range f {
			if strings.HasPrefix(what, c.want) {
				found = true
				delete(unseen, what)
			}
		}
		if !found {
			t.Errorf("%s: differs in %q, want %q among it", name, f, c.want)
		}
	}
	for what := range unseen {
		t.Errorf("nothing here makes this expectation fail: %s", what)
	}
}

// TestSlowRuns: a run that took longer than the admission window may be one too many, in the queue and among the admitted.
func TestSlowRuns(t *testing.T) {
	t.Parallel()
	r := goodRun()
	for i := range r.Phases {
		p := &r.Phases[i]
		if p.Name != Fill {
			continue
		}
		most := maxPending + slots*(1+int(p.End.Sub(p.Start).Seconds()/fillSeconds))
		for k := range p.Answers {
			if a := &p.Answers[k]; !a.admitted() && a.Job && count(p.Answers, Answer.job) < most+1 {
				*a = admit(*a)
			}
		}
		p.Answers[0].Done = p.Answers[0].Sent.Add(admissionWindow + 1)
		p.MaxDepth = maxPending + 1
	}
	tallyUp(r)
	if f := failed(Judge(r)); len(f) > 0 {
		t.Errorf("differs in %q", f)
	}
}

// TestReport writes a report with its plots, of a good run and of one that differs.
func TestReport(t *testing.T) {
	t.Parallel()
	for differs, want := range map[bool]string{false: "52 of 52 expectations", true: "51 of 52 expectations"} {
		r := goodRun()
		if differs {
			r.Jobs.PendingAtEnd = 1
		}
		dir := t.TempDir()
		if err := WriteReport(dir, r, Judge(r)); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "report.md"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), want) || strings.Contains(string(text), "**differs**") != differs {
			t.Errorf("the report does not say %q:\n%s", want, text)
		}
		for _, part := range []string{
			"| burst | 4500 |", "| burst | run | 10 |", "| stall | refused | 4500 | 10.0 ms | 10.0 ms | 10.0 ms | 10.0 ms |",
			"| QueueAgeAtLimit |", "`QUEUE_MAX_AGE_SECONDS=1m40s`",
		} {
			if !strings.Contains(string(text), part) {
				t.Errorf("the report lacks %q:\n%s", part, text)
			}
		}
		for _, plot := range []string{"answers.svg", "depth.svg", "age.svg"} {
			svg, err := os.ReadFile(filepath.Join(dir, plot))
			if err != nil || !strings.Contains(string(svg), "</svg>") {
				t.Errorf("%s: %v, %d bytes", plot, err, len(svg))
			}
		}
	}
}

// TestPlanIsLongEnough: each phase gives the alerts that it must show the time to fire or to end.
func TestPlanIsLongEnough(t *testing.T) {
	t.Parallel()
	for name, least := range map[string]time.Duration{
		Fill:     5*time.Second + alertDelay,
		Stall:    52*time.Second + alertDelay, // until the oldest job is old enough
		Recovery: 48*time.Second + resolveDelay,
	} {
		for _, p := range Plan() {
			if p.Name == name && p.Duration() < least {
				t.Errorf("%s takes %v, want at least %v", name, p.Duration(), least)
			}
		}
	}
}
