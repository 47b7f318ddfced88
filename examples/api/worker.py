"""The SAQ worker: `saq worker.settings` in this folder."""

import os

import jobs

queue = jobs.connect()
if queue is None:
    raise SystemExit("QUEUE_URL is unset: the worker needs the Redis that holds the queue")

settings = {
    "queue": queue,
    "functions": [jobs.train],
    "concurrency": int(os.environ.get("WORKER_CONCURRENCY", "4")),
}
