package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/refrakt-hub/refrakt-gate/authz"
	"github.com/refrakt-hub/refrakt-gate/policy"
)

// resetCmd fills the buckets of one caller.
type resetCmd struct {
	callerFlags `embed:""`

	Output string `short:"o" enum:"text,json" default:"text" help:"Form of the output: text or json."`
}

// filledBucket is one bucket as reset prints it.
type filledBucket struct {
	Policy string `json:"policy"`
	Bucket string `json:"bucket"`
	Per    string `json:"per"`
}

// Run implements the command.
func (c resetCmd) Run(p *process) error {
	subject, err := c.subject()
	if err != nil {
		return exit{exitUsage, err}
	}
	in, err := inspect(p.env)
	if err != nil {
		return err
	}
	defer in.close()
	buckets, err := authz.BucketsOf(in.set, subject)
	if err != nil {
		return exit{exitUsage, err}
	}
	// A bucket that all callers share is not the caller's to have filled.
	buckets = slices.DeleteFunc(buckets, func(b authz.CallerBucket) bool { return b.Per == policy.PerAll })
	if len(buckets) == 0 {
		return exit{exitFailed, errors.New("no policy has a bucket for such a caller: see `refrakt-gate config`")}
	}
	keys, names := make([]string, len(buckets)), make([]string, len(buckets))
	filled := make([]filledBucket, len(buckets))
	for i, b := range buckets {
		keys[i], names[i] = b.Key, fmt.Sprintf("%s per %s", b.Name, b.Per)
		filled[i] = filledBucket{b.Policy, b.Name, string(b.Per)}
	}
	ctx, cancel := context.WithTimeout(context.Background(), inspectTimeout)
	defer cancel()
	if err := in.buckets.Forget(ctx, keys); err != nil {
		return err
	}
	if c.Output == "json" {
		return printJSON(p.stdout, map[string][]filledBucket{"full_again": filled})
	}
	fmt.Fprintf(p.stdout, "full again: %s. A gate that has just refused the caller may do so for another second.\n", strings.Join(names, ", "))
	return nil
}
