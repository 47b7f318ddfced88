package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/replay"
)

// replayCmd decides the requests of access logs again.
type replayCmd struct {
	callerFlags `embed:""`

	Logs   []string `arg:"" name:"log" help:"Access log of Envoy with the fields that envoy/envoy.yaml writes, plain or as gzip. Several logs, of several Envoys too, are taken together. /dev/stdin is the standard input."`
	Policy string   `placeholder:"FILE" help:"Policy file with the limits to try (default: the policies of the environment)."`
	ByPath bool     `help:"Decide each request by the policy of its path. The default is the policy that the log names, because Envoy's route may have named it."`
	Top    int      `short:"n" default:"10" help:"How many callers to show."`
	Output string   `short:"o" enum:"text,json" default:"text" help:"Form of the output: text or json."`
}

// Run implements the command.
func (c replayCmd) Run(p *process) error {
	if c.Top < 1 {
		return exit{exitUsage, fmt.Errorf("--top: %d is below 1", c.Top)}
	}
	var only replay.Only
	if c.callerFlags != (callerFlags{}) {
		subject, err := c.subject()
		if err != nil {
			return exit{exitUsage, err}
		}
		only.IP, only.User = subject.Recorded()
	}
	file, err := c.policies(p)
	if err != nil {
		return err
	}
	log := replay.New(policy.Compile(file), c.ByPath)
	if err := readLogs(log, c.Logs, p.stderr); err != nil {
		return exit{exitFailed, err}
	}
	report := log.Run(only)
	if err := usable(report); err != nil {
		return exit{exitFailed, err}
	}
	report.Callers = report.Callers[:min(c.Top, len(report.Callers))]
	if c.Output == "json" {
		return printJSON(p.stdout, report)
	}
	return printReplay(p.stdout, report)
}

// policies returns those to try.
func (c replayCmd) policies(p *process) (*policy.File, error) {
	if c.Policy == "" {
		cfg, errs := loadConfig(p.env)
		if len(errs) > 0 {
			return nil, badSettings(errs)
		}
		return cfg.policies, nil
	}
	file, mistakes := policy.Read(c.Policy)
	if len(mistakes) > 0 {
		return nil, exit{exitUsage, fmt.Errorf("--policy: %w", errors.Join(mistakes...))}
	}
	return file, nil
}

// readLogs reads the logs, each of them once.
func readLogs(log *replay.Replay, names []string, progress io.Writer) error {
	var before []fs.FileInfo
	for _, name := range names {
		file, err := os.Open(name) //nolint:gosec // the operator names the file
		if err != nil {
			return fmt.Errorf("open the access log: %w", err)
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return fmt.Errorf("open the access log: %w", err)
		}
		if slices.ContainsFunc(before, func(b fs.FileInfo) bool { return os.SameFile(b, info) }) {
			return fmt.Errorf("%s is there twice: each of its requests would be charged twice", name)
		}
		before = append(before, info)
		plain, err := decompressed(&progressReader{Reader: file, name: name, to: progress, next: time.Now().Add(progressInterval)})
		if err != nil {
			return fmt.Errorf("read the access log: %w", err)
		}
		if err := log.Read(plain); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// decompressed returns what a gzip file holds, or a plain one (RFC 1952, section 2.3.1).
func decompressed(r io.Reader) (io.Reader, error) {
	buffered := bufio.NewReader(r)
	if magic, _ := buffered.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) { // a read error comes again
		return buffered, nil
	}
	plain, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	return plain, nil
}

// progressInterval is the time between two words on how far a log is read.
const progressInterval = 2 * time.Second

// progressReader says how far a file is read.
type progressReader struct {
	io.Reader

	name string
	to   io.Writer
	read int64
	next time.Time
}

// Read implements [io.Reader].
func (r *progressReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.read += int64(n)
	if now := time.Now(); now.After(r.next) {
		r.next = now.Add(progressInterval)
		fmt.Fprintf(r.to, "%s: read %d MB\n", r.name, r.read>>20)
	}
	return n, err //nolint:wrapcheck // io.EOF must stay what it is
}

// usable returns an error if a report says nothing, with what was wrong with the lines.
func usable(r replay.Report) error {
	u := r.Unused
	switch {
	case len(r.Hours) > 0:
		return nil
	case r.Lines == 0:
		return errors.New("the access log is empty")
	case u.Unreadable == r.Lines:
		return errors.New("no line is an access log's in JSON with a time like 2026-11-26T10:00:00.000Z: see json_format in envoy/envoy.yaml")
	case u.NoCaller > 0:
		return errors.New("no line says who sent the request. The gate finds that out for guarded requests only. If they were guarded, add `ip` and `user` to Envoy's json_format, as envoy/envoy.yaml has them")
	case u.NotAsked+u.Unreadable == r.Lines:
		return errors.New("no line has a verdict of a gate: the gate was not asked, or `verdict` is missing in Envoy's json_format (see envoy/envoy.yaml)")
	case u.NotGuarded > 0:
		return errors.New("no request falls under one of these policies: see `refrakt-gate config`")
	default:
		return errors.New("the access log has no request of such a caller")
	}
}

func printReplay(w io.Writer, r replay.Report) error {
	total := 0
	for _, h := range r.Hours {
		total += h.Requests
	}
	fmt.Fprintf(w, "%d lines, %d requests from %s to %s (UTC)\n", r.Lines, total, r.From.Format(time.DateTime), r.To.Format(time.DateTime))
	if text := unused(r.Unused); text != "" {
		fmt.Fprintln(w, "not used: "+text)
	}
	fmt.Fprintf(w, "verdicts of the buckets as in the log: %d of %d (%s)\n\n", r.Same, r.Compared, percent(r.Same, r.Compared))

	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "POLICY\tHOUR\tREQUESTS\tREFUSED\tIN THE LOG\tBY THE QUEUE\tOTHERWISE")
	var sum replay.Counts
	first := 0 // of the hours of the policy
	for i, h := range r.Hours {
		printCounts(t, h.Policy, h.Hour.Format("2006-01-02 15:04"), h.Counts)
		sum = sum.Plus(h.Counts)
		if i+1 == len(r.Hours) || r.Hours[i+1].Policy != h.Policy {
			if i > first {
				printCounts(t, h.Policy, "all", sum)
			}
			sum, first = replay.Counts{}, i+1
		}
	}
	if len(r.Callers) > 0 {
		fmt.Fprintln(t, "\nCALLER\tPOLICY\tREQUESTS\tREFUSED\tOWN BUCKET\tIN THE LOG")
	}
	for _, c := range r.Callers {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d (%s)\t%d\t%d\n", printable(c.Caller), c.Policy, c.Requests,
			c.Refused, percent(c.Refused, c.Requests), c.Own, c.Recorded)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func printCounts(w io.Writer, policy, hour string, c replay.Counts) {
	fmt.Fprintf(w, "%s\t%s\t%d\t%d (%s)\t%d (%s)\t%d\t%d\n", policy, hour, c.Requests,
		c.Refused, percent(c.Refused, c.Requests), c.Recorded, percent(c.Recorded, c.Requests), c.Queue, c.Other)
}

// unused says in words which lines were not used.
func unused(u replay.Unused) string {
	var parts []string
	for _, part := range []struct {
		n    int
		text string
	}{
		{u.NotAsked, "about which the gate was not asked"},
		{u.NotGuarded, "under no policy"},
		{u.NoCaller, "without a caller"},
		{u.Unreadable, "that are no JSON with a time"},
	} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.n, part.text))
		}
	}
	return strings.Join(parts, ", ")
}

// percent returns the share of part in all: "12.5 %".
func percent(part, all int) string {
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(max(1, all)))
}
