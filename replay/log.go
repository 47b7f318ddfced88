// Package replay decides the requests of an access log again, with other limits. It uses
// the buckets of package quota, with the clock of the log.
package replay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/valyala/fastjson"

	"github.com/refrakt-hub/refrakt-gate/authz"
)

// maxLine is the length in bytes of the longest line that is read. envoy.yaml lets a path
// have 32 KiB, and JSON needs up to six bytes for one.
const maxLine = 256 << 10

// imprecision is how exact the times of a log are. Envoy writes milliseconds, and needs some
// time before it asks the gate.
const imprecision = 2 * time.Millisecond

// line is a line of an access log. envoy/envoy.yaml has its fields (json_format), and
// decision.proto says what those of the gate mean.
type line struct{ *fastjson.Value }

// text returns a field; empty if it is not there or no string.
func (l line) text(key string) string { return string(l.GetStringBytes(key)) }

// Read adds the lines of an access log. It can be called for several logs, those of several
// Envoys too. A line may have something before its JSON, as logs of containers do. Read
// needs memory for each line, and more for each caller.
func (r *Replay) Read(log io.Reader) error {
	in := bufio.NewReaderSize(log, maxLine)
	for {
		text, err := in.ReadSlice('\n')
		long := false
		for errors.Is(err, bufio.ErrBufferFull) {
			long = true
			_, err = in.ReadSlice('\n')
		}
		if len(text) > 0 {
			r.report.Lines++
			if long {
				text = nil
			}
			r.add(text)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the access log: %w", err)
		}
	}
}

// add adds a line.
func (r *Replay) add(text []byte) {
	l, at, err := r.parse(text)
	if err != nil {
		r.report.Unused.Unreadable++
		return
	}
	if l.text("verdict") == "" {
		r.report.Unused.NotAsked++
		return
	}
	req := request{at: at, took: l.took() + imprecision, policy: r.policyOf(l), outcome: outcomeOf(l)}
	ip := l.text("ip")
	switch {
	case req.policy < 0:
		r.report.Unused.NotGuarded++
		return
	case ip == "":
		r.report.Unused.NoCaller++
		return
	}
	req.ip, req.user, req.tier = r.names.id(ip), r.names.id(l.text("user")), r.names.id(l.text("tier"))
	r.requests = append(r.requests, req)
}

// parse reads a line and its time, since the epoch.
func (r *Replay) parse(text []byte) (l line, at time.Duration, err error) {
	text = text[max(0, bytes.Index(text, []byte(`{"`))):]
	if l.Value, err = r.parser.ParseBytes(text); err != nil {
		return l, 0, fmt.Errorf("read JSON: %w", err)
	}
	if inner := l.text("log"); inner != "" { // Docker's json-file has the line as a text
		if l.Value, err = r.parser.Parse(inner); err != nil {
			return l, 0, fmt.Errorf("read JSON: %w", err)
		}
	}
	t, err := time.Parse(time.RFC3339, l.text("time"))
	if err != nil {
		return l, 0, fmt.Errorf("read the time: %w", err)
	}
	if t.Year() < 1970 || t.Year() > 2200 {
		return l, 0, fmt.Errorf("read the time: %d is no year of a log", t.Year())
	}
	return l, time.Duration(t.UnixNano()), nil
}

// longestTook is longer than any Envoy waits for a gate.
const longestTook = time.Minute

// took returns how long the gate took. Envoy writes it as a text.
func (l line) took() time.Duration {
	us, err := strconv.ParseFloat(l.text("gate_us"), 64)
	if err != nil {
		us = l.GetFloat64("gate_us")
	}
	return time.Duration(max(0, min(us, float64(longestTook/time.Microsecond)))) * time.Microsecond
}

// policyOf returns the index of the policy that a request falls under: the one that the log
// names, if there still is one, else that of its path; -1 if there is none.
func (r *Replay) policyOf(l line) int32 {
	if p := r.set.Named(l.text("policy")); p != nil && !r.byPath {
		return r.index[p]
	}
	if path := l.text("path"); path != "" {
		if p := r.set.Match(l.text("method"), path); p != nil {
			return r.index[p]
		}
	}
	return -1
}

// outcome is what the log says of a request.
type outcome uint8

const (
	passed    outcome = iota // the buckets let it pass
	limited                  // a bucket was empty
	undecided                // the log does not say what the buckets said
	byQueue                  // the queue refused it; it cost no token
	byOther                  // refused without a look at the buckets
	exempt                   // let pass without a look at the buckets
)

func outcomeOf(l line) outcome {
	reason := authz.Reason(l.text("reason"))
	denied := l.text("verdict") == "deny"
	switch reason {
	case authz.ReasonRateLimited:
		return limited // in shadow mode too
	case authz.ReasonLimiterUnavailable, authz.ReasonNotGuarded:
		return undecided
	case authz.ReasonQueueFull, authz.ReasonQueueSlow, authz.ReasonQueueShare, authz.ReasonQueueUnknown:
		if denied {
			return byQueue
		}
	default:
		if denied {
			return byOther
		}
	}
	switch {
	case l.text("tier") == "": // no bucket was asked
		return exempt
	case l.GetBool("shadow"): // a bucket may have been empty besides
		return undecided
	default:
		return passed
	}
}
