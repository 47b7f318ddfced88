package backpressure

// queuedKey is SAQ's list of the ids of waiting jobs, the oldest first. An id is
// also the key of the job's payload.
func queuedKey(queue string) string { return "saq:" + queue + ":queued" }

// activeKey is SAQ's list of the ids of jobs that workers have taken.
func activeKey(queue string) string { return "saq:" + queue + ":active" }

// statsKey is SAQ's sorted set of workers; a score is the time in milliseconds
// until which that worker counts as alive.
func statsKey(queue string) string { return "saq:" + queue + ":stats" }

// windowKey is our own hash beside the queue: the requests admitted lately.
func windowKey(queue string) string { return "refrakt:gate:admissions:" + queue }
