package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/refrakt-hub/refrakt-gate/authz"
	"github.com/refrakt-hub/refrakt-gate/backpressure/saq"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// callerFlags name a caller, for commands that read Redis with the settings of a gate.
type callerFlags struct {
	IP       string `placeholder:"ADDRESS" help:"Address of the client. An IPv6 client has the buckets of its /64."`
	User     string `placeholder:"ID" help:"Id of the user, as requests name it."`
	Verified bool   `help:"The user is one whom Envoy has verified (USER_ID_SOURCES=jwt). Such a user has other buckets than one whom a client only claims."`
}

// subject is the caller that the flags name.
func (c callerFlags) subject() (authz.Subject, error) {
	s := authz.Subject{User: c.User, Verified: c.Verified}
	switch {
	case c.IP == "" && c.User == "":
		return s, errors.New("say whom: --ip, --user or both")
	case c.Verified && c.User == "":
		return s, errors.New("--verified says something of --user, which is missing")
	case !authz.IsUserID(c.User):
		return s, errors.New("--user: no user has such an id: it is over 256 bytes long or has control characters")
	case c.IP != "":
		ip, err := netip.ParseAddr(c.IP)
		if err != nil {
			return s, fmt.Errorf("--ip: %q is not an address", c.IP)
		}
		s.IP = ip.Unmap().WithZone("")
	}
	return s, nil
}

// showCmd shows the buckets of one caller, and its places in queues.
type showCmd struct {
	callerFlags `embed:""`

	Tier   string `help:"Tier that the caller's requests name, by which its limits are (default: the plain one). A tier that POLICY_FILE gives the caller counts before it."`
	Output string `short:"o" enum:"text,json" default:"text" help:"Form of the output: text or json."`
}

// shownCaller is what show prints.
type shownCaller struct {
	standing

	Buckets []shownBucket `json:"buckets"`
	Places  []heldPlaces  `json:"places"`
}

// shownBucket is one bucket as show prints it.
type shownBucket struct {
	Policy   string  `json:"policy"`
	Bucket   string  `json:"bucket"`
	Per      string  `json:"per"`
	Left     int64   `json:"left"`
	Capacity int64   `json:"capacity"`
	Next     float64 `json:"next_token_seconds"` // 0: it has a token
	Full     float64 `json:"full_seconds"`       // 0: it is full
	Shadow   bool    `json:"shadow"`             // the policy's limits refuse nothing
}

// heldPlaces is what a caller has of a queue with a fair share, as show prints it.
type heldPlaces struct {
	Queue string `json:"queue"`
	Held  int64  `json:"held"`
	// MayHold counts one more job among those that wait: the caller gets a place while Held
	// is less.
	MayHold int `json:"may_hold"`
}

// Run implements the command.
func (c showCmd) Run(p *process) error {
	subject, err := c.subject()
	if err != nil {
		return exit{exitUsage, err}
	}
	subject.Tier = c.Tier
	in, err := inspect(p.env)
	if err != nil {
		return err
	}
	defer in.close()
	buckets, err := authz.BucketsOf(in.set, subject)
	if err != nil {
		return exit{exitUsage, fmt.Errorf("--tier: %w", err)}
	}
	ctx, cancel := context.WithTimeout(context.Background(), inspectTimeout)
	defer cancel()
	shown := shownCaller{standing: in.standing(subject)}
	if shown.Buckets, err = in.look(ctx, buckets); err != nil {
		return err
	}
	if shown.Places, err = in.places(ctx, subject); err != nil {
		return err
	}
	if len(shown.Buckets)+len(shown.Places) == 0 && !shown.Denied {
		return exit{exitFailed, errors.New("no policy has a bucket or a share of a queue for such a caller: see `refrakt-gate config`")}
	}
	if c.Output == "json" {
		return printJSON(p.stdout, shown)
	}
	if notes := shown.notes(); len(notes) > 0 {
		fmt.Fprintf(p.stdout, "%s\n\n", strings.Join(notes, "\n"))
	}
	if err := printBuckets(p.stdout, shown.Buckets); err != nil {
		return err
	}
	return printPlaces(p.stdout, shown.Places)
}

// look reads the state of buckets.
func (in *inspection) look(ctx context.Context, buckets []authz.CallerBucket) ([]shownBucket, error) {
	shown := make([]shownBucket, len(buckets)) // not null in JSON
	if len(buckets) == 0 {
		return shown, nil
	}
	plain := make([]quota.Bucket, len(buckets))
	for i, b := range buckets {
		plain[i] = b.Bucket
	}
	debts, err := in.buckets.Peek(ctx, plain)
	if err != nil {
		return nil, err
	}
	for i, b := range buckets {
		r := quota.Result{Limit: b.Limit, Debt: debts[i]}
		shown[i] = shownBucket{
			Policy: b.Policy, Bucket: b.Name, Per: string(b.Per),
			Left: r.Remaining(), Capacity: b.Limit.Capacity, Full: debts[i].Seconds(), Shadow: b.Shadow,
		}
		if r.Remaining() == 0 {
			shown[i].Next = r.NextToken().Seconds()
		}
	}
	return shown, nil
}

// places reads what the caller has of each queue that knows whose its jobs are.
func (in *inspection) places(ctx context.Context, s authz.Subject) ([]heldPlaces, error) {
	all := []heldPlaces{} // not null in JSON
	for _, q := range in.cfg.policies.Queues {
		asker, err := authz.AskerOf(in.set, q, s)
		if err != nil {
			return nil, err
		}
		place := limitsOf(q).Place(asker)
		if place.Share == 0 || place.Caller == "" {
			continue
		}
		held, pending, err := saq.New(q.Name, in.queueRedis).Held(ctx, place.Caller, in.cfg.Queue.AdmissionWindow)
		if err != nil {
			return nil, err
		}
		all = append(all, heldPlaces{q.Name, held, place.MayHold(pending + 1)})
	}
	return all, nil
}

func printPlaces(w io.Writer, all []heldPlaces) error {
	if len(all) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nQUEUE\tPLACES HELD\tMAY HOLD")
	for _, q := range all {
		fmt.Fprintf(t, "%s\t%d\t%d\n", q.Queue, q.Held, q.MayHold)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func printBuckets(w io.Writer, shown []shownBucket) error {
	if len(shown) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "POLICY\tBUCKET\tPER\tLEFT\tNEXT TOKEN\tFULL")
	for _, b := range shown {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d of %d\t%s\t%s\n", b.Policy, b.Bucket, b.Per, b.Left, b.Capacity, when(b.Next), when(b.Full))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// when says how long something takes: "now", "in 9.5s".
func when(seconds float64) string {
	if seconds <= 0 {
		return "now"
	}
	return "in " + time.Duration(seconds*float64(time.Second)).Round(100*time.Millisecond).String()
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
