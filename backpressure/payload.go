package backpressure

import (
	"encoding/json"
	"math"
	"strings"
)

// payload is the part of a SAQ job that tells since when it could have run. SAQ
// leaves out what has its default. Its documentation calls the times epoch
// seconds; only scheduled is.
type payload struct {
	Queued       float64         `json:"queued"`      // ms: enqueued
	Touched      float64         `json:"touched"`     // ms: last update, a retry among them
	Scheduled    float64         `json:"scheduled"`   // s: not to be run before
	RetryDelay   float64         `json:"retry_delay"` // s
	RetryBackoff json.RawMessage `json:"retry_backoff"`
	Attempts     float64         `json:"attempts"`
	Status       string          `json:"status"`
	Error        string          `json:"error"`
}

// runnableSince returns the epoch milliseconds at which a waiting job last
// became runnable; false if the payload doesn't tell.
func runnableSince(text string) (millis float64, ok bool) {
	var p payload
	if decode(text, &p) != nil {
		return 0, false
	}
	touched := p.Touched
	if touched > 0 && p.retried() {
		touched += p.retryDelay() * 1000
	}
	millis = max(p.Queued, p.Scheduled*1000, touched)
	return millis, millis > 0
}

// retried tells a retry from a plain update of a waiting job. A job swept before
// its first attempt was marked has no attempts, but an error.
func (p payload) retried() bool {
	return p.Status == "queued" && (p.Attempts > 0 || p.Error != "")
}

// retryDelay is how many seconds after touched a retried job became runnable.
// SAQ keeps that due time only as a score, which it overwrites when the job is
// moved to the list, so it has to be computed again. With backoff the true delay
// was drawn at random below the bound used here: an age is then too small by at
// most that, never too great.
func (p payload) retryDelay() float64 {
	var limit float64
	switch string(p.RetryBackoff) {
	case "", "null", "false":
		return max(0, p.RetryDelay)
	case "true":
		limit = math.Inf(1)
	default:
		if json.Unmarshal(p.RetryBackoff, &limit) != nil {
			return max(0, p.RetryDelay)
		}
	}
	if p.RetryDelay <= 0 || limit <= 0 {
		return 0
	}
	return min(limit, p.RetryDelay*math.Exp2(max(0, p.Attempts-1)))
}

// decode reads JSON as Python's json module writes it: with NaN and Infinity, of
// which nothing is wanted.
func decode(text string, into any) error {
	err := json.Unmarshal([]byte(text), into)
	if err == nil || (!strings.Contains(text, "NaN") && !strings.Contains(text, "Infinity")) {
		return err
	}
	return json.Unmarshal(withoutNaN(text), into)
}

// withoutNaN puts null in the place of NaN and Infinity outside strings.
func withoutNaN(text string) []byte {
	out := make([]byte, 0, len(text))
	quoted := false
	for i := 0; i < len(text); i++ {
		if !quoted {
			for _, word := range []string{"NaN", "-Infinity", "Infinity"} {
				if strings.HasPrefix(text[i:], word) {
					out = append(out, "null"...)
					i += len(word)
					break
				}
			}
			if i >= len(text) {
				break
			}
		}
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted && i+1 < len(text):
			out = append(out, c)
			i++
		}
		out = append(out, text[i])
	}
	return out
}
