package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/process"
)

const (
	replayLines   = 1_000_000
	replayCallers = 20_000
	replayRuns    = 5
)

// replayLog has the newest gate decide the requests of a large access log again.
func replayLog(b *bench, g *process.Group) error {
	b.report.Section("Replay", fmt.Sprintf("`replay` ([support.md](../support.md)) of an access log with %d requests of %d callers, some of them far more often than others. "+
		"Time is the median of %d whole runs, with the shortest and the longest.", replayLines, replayCallers, replayRuns))
	log := filepath.Join(g.Dir, "access.log")
	b.say("replay: writing an access log of %d lines", replayLines)
	size, err := writeAccessLog(log)
	if err != nil {
		return err
	}
	took, peak := make([]time.Duration, replayRuns), int64(0)
	for i := range took {
		b.say("replay: run %d of %d", i+1, replayRuns)
		var most int64
		if took[i], most, err = g.Run("replay", b.newest().Env, 5*time.Minute, b.newest().Binary, "replay", log); err != nil {
			return err
		}
		peak = max(peak, most)
	}
	slices.Sort(took)
	b.report.Rows([]string{"lines", "log MB", "s", "shortest", "longest", "peak MB"}, [][]string{{
		fmt.Sprint(replayLines), fmt.Sprintf("%.0f", float64(size)/1e6), fmt.Sprintf("%.1f", took[replayRuns/2].Seconds()),
		fmt.Sprintf("%.1f", took[0].Seconds()), fmt.Sprintf("%.1f", took[replayRuns-1].Seconds()), fmt.Sprintf("%.0f", float64(peak)/1e6),
	}})
	return nil
}

// writeAccessLog writes a log as Envoy does with envoy/envoy.yaml, and returns its size in bytes.
func writeAccessLog(path string) (size int64, err error) {
	file, err := os.Create(path)
	if err != nil {
		return 0, fmt.Errorf("create the access log: %w", err)
	}
	defer file.Close()
	random := rand.New(rand.NewPCG(1, 1))
	often := rand.NewZipf(random, 1.2, 10, replayCallers-1)
	at := time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)
	w := bufio.NewWriter(file)
	for i := range replayLines {
		at = at.Add(time.Duration(random.ExpFloat64() * float64(time.Second) / 300))
		caller := often.Uint64()
		n, _ := fmt.Fprintf(w, `{"code":202,"details":"via_upstream","duration_ms":12,"flags":"-","gate_us":"%d","ip":"ip:%022d","method":"POST","path":"/run","peer":"10.1.2.3",`+
			`"policy":"run","reason":"ok","request_id":"00000000-0000-4000-8000-%012d","shadow":false,"tier":"plain","time":"%s","user":"user:%022d","verdict":"allow","wait_ms":0}`+"\n",
			300+random.IntN(500), caller, i, at.Format("2006-01-02T15:04:05.000Z"), caller)
		size += int64(n)
	}
	if err := w.Flush(); err != nil {
		return 0, fmt.Errorf("write the access log: %w", err)
	}
	return size, nil
}
