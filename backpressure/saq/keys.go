package saq

import "strings"

// queuedKey is SAQ's list of the ids of waiting jobs, the oldest first. An id is
// also the key of the job's payload.
func (q *Queue) queuedKey() string { return "saq:" + q.name + ":queued" }

// activeKey is SAQ's list of the ids of jobs that workers have taken.
func (q *Queue) activeKey() string { return "saq:" + q.name + ":active" }

// statsKey is SAQ's sorted set of workers. A score is the time in milliseconds until
// which that worker counts as alive.
func (q *Queue) statsKey() string { return "saq:" + q.name + ":stats" }

// incompleteKey is SAQ's sorted set of the ids of all jobs that have not ended:
// waiting, scheduled, taken.
func (q *Queue) incompleteKey() string { return "saq:" + q.name + ":incomplete" }

// jobPattern matches the ids of the queue's jobs, and those of a queue whose name
// goes on with a colon. An id is the channel of the job's status events too.
func (q *Queue) jobPattern() string {
	return globEscaper.Replace("saq:job:"+q.name+":") + "*"
}

var globEscaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// windowKey is the gate's own hash beside the queue: the requests admitted lately.
func (q *Queue) windowKey() string { return "refrakt:gate:admissions:" + q.name }

// orderKey and sharesKey are the gate's too: whose jobs wait or are on their way, if the
// queue has a fair share.
func (q *Queue) orderKey() string  { return "refrakt:gate:order:" + q.name }
func (q *Queue) sharesKey() string { return "refrakt:gate:shares:" + q.name }
