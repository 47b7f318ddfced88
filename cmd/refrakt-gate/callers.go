package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/refrakt-hub/refrakt-gate/backpressure/saq"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// callersCmd shows who uses most.
type callersCmd struct {
	Top     int           `short:"n" default:"10" help:"How many callers to show, by the time until their buckets are full and by places in each queue."`
	Timeout time.Duration `default:"5m" help:"How long to look at most. Redis is asked in small steps."`
	Output  string        `short:"o" enum:"text,json" default:"text" help:"Form of the output: text or json."`
}

// owed is a bucket as callers prints it.
type owed struct {
	Bucket string  `json:"bucket"`
	Caller string  `json:"caller"`
	Full   float64 `json:"full_seconds"`
}

// placed is a caller with places in a queue.
type placed struct {
	Queue  string `json:"queue"`
	Caller string `json:"caller"`
	Places int64  `json:"places"`
}

// Run implements the command.
func (c callersCmd) Run(p *process) error {
	if c.Top < 1 || c.Top > 10_000 {
		return exit{exitUsage, fmt.Errorf("--top: %d is not between 1 and 10000", c.Top)}
	}
	in, err := inspect(p.env)
	if err != nil {
		return err
	}
	defer in.close()
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	var most struct {
		Owed   []owed   `json:"owed"`
		Places []placed `json:"places"`
	}
	if most.Owed, err = in.mostOwing(ctx, c.Top); err != nil {
		return err
	}
	if most.Places, err = in.mostPlaces(ctx, c.Top); err != nil {
		return err
	}
	if c.Output == "json" {
		return printJSON(p.stdout, most)
	}
	return printCallers(p.stdout, most.Owed, most.Places)
}

// mostOwing returns the buckets that need the longest time to be full, the longest first.
func (in *inspection) mostOwing(ctx context.Context, n int) ([]owed, error) {
	most := []owed{} // not null in JSON
	err := in.buckets.Scan(ctx, func(o quota.Owing) {
		most = append(most, owed{o.Bucket, o.Subject, o.Debt.Seconds()})
		if len(most) >= 2*n+1000 { // memory does not grow with the number of buckets
			most = longest(most, n)
		}
	})
	return longest(most, n), err
}

// longest returns the n that need the longest time to be full. A bucket that was seen twice
// is there once.
func longest(all []owed, n int) []owed {
	slices.SortFunc(all, func(a, b owed) int {
		return cmp.Or(cmp.Compare(b.Full, a.Full), cmp.Compare(a.Bucket, b.Bucket), cmp.Compare(a.Caller, b.Caller))
	})
	seen := make(map[owed]bool)
	all = slices.DeleteFunc(all, func(o owed) bool {
		o.Full = 0
		again := seen[o]
		seen[o] = true
		return again
	})
	return all[:min(n, len(all))]
}

// mostPlaces returns the callers with most places in each queue that has a fair share.
func (in *inspection) mostPlaces(ctx context.Context, n int) ([]placed, error) {
	most := []placed{} // not null in JSON
	for _, q := range in.cfg.policies.Queues {
		if q.FairShare == 0 {
			continue
		}
		holders, err := saq.New(q.Name, in.queueRedis).Holders(ctx, n)
		if err != nil {
			return nil, err
		}
		for _, h := range holders {
			most = append(most, placed{q.Name, h.Caller, h.Places})
		}
	}
	return most, nil
}

func printCallers(w io.Writer, all []owed, places []placed) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BUCKET\tCALLER\tFULL")
	for _, o := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\n", printable(o.Bucket), printable(o.Caller), when(o.Full))
	}
	if len(places) > 0 {
		fmt.Fprintln(t, "\nQUEUE\tCALLER\tPLACES")
		for _, p := range places {
			fmt.Fprintf(t, "%s\t%s\t%d\n", p.Queue, printable(p.Caller), p.Places)
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
