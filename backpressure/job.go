package backpressure

import (
	"encoding/json"
	"slices"
)

// status is what SAQ calls the state of a job.
type status string

// SAQ's statuses, less "new", which is never stored; and statusUnknown, from
// which every job comes.
const (
	statusUnknown  status = "unknown"
	statusQueued   status = "queued"
	statusActive   status = "active"
	statusAborting status = "aborting"
	statusAborted  status = "aborted"
	statusFailed   status = "failed"
	statusComplete status = "complete"
)

func (s status) known() bool {
	return s == statusQueued || s == statusActive || s == statusAborting || s.final()
}

func (s status) final() bool {
	return s == statusAborted || s == statusFailed || s == statusComplete
}

// job is the part of a SAQ payload that tells what became of a job.
type job struct {
	payload

	Queue     string                     `json:"queue"`
	Started   float64                    `json:"started"`   // ms: newest start, 0 while it waits
	Completed float64                    `json:"completed"` // ms: end, 0 before
	Kwargs    map[string]json.RawMessage `json:"kwargs"`
}

// parseJob reads a payload; nil if it is none, or another queue's.
func parseJob(text, queue string) *job {
	var j job
	if decode(text, &j) != nil || j.Queue != queue || !j.status().known() {
		return nil
	}
	return &j
}

func (j *job) status() status { return status(j.Status) }

// runnable is the epoch millisecond at which a waiting job last became runnable.
// Until the first retry updates in between do not count, so that it is the same
// whether or not the job was seen waiting.
func (j *job) runnable() int64 {
	since := max(j.Queued, j.Scheduled*1000)
	if j.retried() && j.Touched > 0 {
		since = max(since, j.Touched+j.retryDelay()*1000)
	}
	return int64(since)
}

// Sources that are not in JOB_SOURCES.
const (
	sourceOther   = "other"
	sourceUnknown = "unknown" // there is none
)

// source is one of a closed set: a known source, or one of the two above.
func (j *job) source(known Sources) string {
	raw := j.Kwargs["source"]
	var s *string
	switch {
	case len(raw) == 0:
		return sourceUnknown
	case json.Unmarshal(raw, &s) != nil:
		return sourceOther // not a string
	case s == nil || *s == "":
		return sourceUnknown
	case slices.Contains(known, *s):
		return *s
	default:
		return sourceOther
	}
}
