package backpressure

import "strings"

// queuedKey is SAQ's list of the ids of waiting jobs, the oldest first. An id is
// also the key of the job's payload.
func queuedKey(queue string) string { return "saq:" + queue + ":queued" }

// activeKey is SAQ's list of the ids of jobs that workers have taken.
func activeKey(queue string) string { return "saq:" + queue + ":active" }

// statsKey is SAQ's sorted set of workers; a score is the time in milliseconds
// until which that worker counts as alive.
func statsKey(queue string) string { return "saq:" + queue + ":stats" }

// incompleteKey is SAQ's sorted set of the ids of all jobs that are not at their
// end: waiting, scheduled, taken.
func incompleteKey(queue string) string { return "saq:" + queue + ":incomplete" }

// jobPrefix begins the id of each of the queue's jobs. An id is the key of the
// payload, and the channel on which the job's status is published too.
func jobPrefix(queue string) string { return "saq:job:" + queue + ":" }

// jobPattern matches the ids of the queue's jobs (and of a queue whose name goes
// on with a colon).
func jobPattern(queue string) string {
	return globEscaper.Replace(jobPrefix(queue)) + "*"
}

var globEscaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)

// windowKey is our own hash beside the queue: the requests admitted lately.
func windowKey(queue string) string { return "refrakt:gate:admissions:" + queue }

// ledgerKey is our own hash: what has been counted of each job, by its id.
func ledgerKey(queue string) string { return "refrakt:gate:jobs:" + queue }

// leaseKey holds the token of the replica that counts the jobs.
func leaseKey(queue string) string { return "refrakt:gate:jobs:" + queue + ":lease" }

// sinceKey holds the time in milliseconds at which the fleet began to count.
func sinceKey(queue string) string { return "refrakt:gate:jobs:" + queue + ":since" }

// batchKey holds the number of the last batch that the holder of token wrote.
func batchKey(queue, token string) string { return "refrakt:gate:jobs:" + queue + ":batch:" + token }
