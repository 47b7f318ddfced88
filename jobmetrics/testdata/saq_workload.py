"""Runs jobs of many kinds through real SAQ and prints what it did with them, as JSON.

Usage: saq_workload.py REDIS_URL QUEUE JOBS PACE [KIND,KIND…]

PACE is how many jobs are enqueued per second (0: all at once); without KINDS there are all kinds. What happened is written down where SAQ does
it, in its own queue class, so the account does not depend on what can be read from Redis.
"""

import asyncio
import json
import logging
import sys
import time
from collections import Counter

from saq.job import Status
from saq.queue.redis import RedisQueue
from saq.worker import Worker


class Account(RedisQueue):
    """A queue that writes down what it does."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.enqueued, self.transitions = Counter(), Counter()
        self.waits, self.runs = [], []
        self.restarts = []  # when, in ms: starts of which only the newest attempt's payload tells
        self.status, self.runnable = {}, {}
        self.waits_of, self.runs_of = {}, {}  # by job, of the newest job with a key
        self.stay = set()  # jobs that will not end

    def note(self, job, status):
        """Returns whether that is a change: SAQ ends an aborted job twice."""
        before = self.status.get(job.key, "unknown")
        if status == before:
            return False
        self.transitions[f"{before}>{status}"] += 1
        self.status[job.key] = status
        return True

    async def _enqueue(self, job):
        # Before it is done: a worker may be faster than the answer.
        before = self.status.pop(job.key, None)
        self.waits_of[job.key], self.runs_of[job.key] = [], []
        self.note(job, "queued")
        self.runnable[job.key] = max(job.queued, job.scheduled * 1000)
        done = await super()._enqueue(job)
        assert done is not None, f"{job.key} refused, was {before}"
        self.enqueued[(job.kwargs or {}).get("source") or "unknown"] += 1
        return done

    async def _update(self, job, status=None, **kwargs):
        if status == Status.ACTIVE:
            self.note(job, "active")
            self.waits.append((job.started - self.runnable[job.key]) / 1000)
            self.waits_of[job.key].append(self.waits[-1])
            if job.attempts > 1:
                self.restarts.append(job.started)
        await super()._update(job, status, **kwargs)

    async def _retry(self, job, error):
        self.note(job, "queued")
        self.runnable[job.key] = job.touched + int(job.retry_delay * 1000)
        await super()._retry(job, error)

    async def _finish(self, job, status, **kwargs):
        if self.note(job, status.value) and job.started:
            self.runs.append((job.completed - job.started) / 1000)
            self.runs_of[job.key].append(self.runs[-1])
        await super()._finish(job, status, **kwargs)

    def kept(self):
        """The times that SAQ's payloads still tell: waits of jobs that were started once, and runs."""
        waits = [w[0] for w in self.waits_of.values() if len(w) == 1]
        runs = [r for runs in self.runs_of.values() for r in runs]
        return {"waits": len(waits), "wait_seconds": sum(waits), "runs": len(runs), "run_seconds": sum(runs)}

    async def abort(self, job, error, ttl=5):
        self.note(job, "aborting")
        await super().abort(job, error, ttl)


async def work(ctx, *, seconds=0.0, fail=0, progress=0, source=None):
    """Fails in its first `fail` attempts, and reports progress so many times."""
    job = ctx["job"]
    for n in range(progress):
        await job.update(progress=n / progress)
    await asyncio.sleep(seconds)
    if job.attempts <= fail:
        raise RuntimeError("on purpose")


KINDS = ["short", "long", "failing", "retried", "delayed", "scheduled", "progressing", "waiting abort", "running abort",
         "scheduled abort", "swept", "lost worker", "kept nowhere", "short", "short", "sourceless", "odd source"]  # fmt: skip


async def enqueue(queue, kind):
    match kind:
        case "long":
            return await queue.enqueue("work", seconds=1.0, source="assistant")
        case "failing":
            return await queue.enqueue("work", fail=1, source="api")
        case "retried":
            return await queue.enqueue("work", fail=2, retries=3, source="api")
        case "delayed":
            return await queue.enqueue("work", fail=1, retries=2, retry_delay=1.0, source="api")
        case "scheduled":
            return await queue.enqueue("work", scheduled=int(time.time()) + 2, source="api")
        case "progressing":
            return await queue.enqueue("work", progress=5, source="api")
        case "scheduled abort":  # SAQ leaves such a job aborting for ever
            job = await queue.enqueue("work", scheduled=int(time.time()) + 3600, source="api")
            await queue.abort(job, "on purpose")
            queue.stay.add(job.key)
            return job
        case "running abort":
            return await queue.enqueue("work", seconds=30, timeout=60, source="assistant")
        case "kept nowhere":
            return await queue.enqueue("work", ttl=-1, seconds=2.0, source="assistant")
        case "sourceless":
            return await queue.enqueue("work")
        case "odd source":
            return await queue.enqueue("work", source="cron")
        case _:
            return await queue.enqueue("work", source="api")


async def sweep(queue, job):
    """What SAQ's sweeper does with a job that a worker took but never marked: gives it back."""
    await queue.abort(job, "swept")
    await asyncio.sleep(0.2)
    await queue.retry(job, "swept")


async def lose_worker(queue, job):
    """A worker marks the job active and is gone; the sweeper gives the job back, and another worker starts it at once."""
    job.started, job.attempts = int(time.time() * 1000), job.attempts + 1
    await queue.update(job, status=Status.ACTIVE)
    return job


async def abort_running(queue, jobs):
    """Aborts each once it runs."""
    while jobs:
        for job in list(jobs):
            await job.refresh()
            if job.status == Status.ACTIVE:
                await queue.abort(job, "on purpose")
                jobs.remove(job)
        await asyncio.sleep(0.05)


async def main(url, name, count, pace, kinds):
    queue = Account.from_url(url, name=name)
    await queue.connect()
    # SAQ's own sweeper stays away: when it comes is a matter of luck.
    await queue.redis.set(queue.namespace("sweep"), 1, ex=3600)
    workers = [Worker(queue, functions=[work], concurrency=25, timers={"abort": 1, "schedule": 1}) for _ in range(2)]
    for w in workers:
        w.SIGNALS = []
    print("ready", flush=True)
    kinds = [kinds[n % len(kinds)] for n in range(count)]
    to_abort = []
    swept = [await enqueue(queue, k) for k in kinds if k == "swept"]
    await asyncio.gather(*[sweep(queue, await queue.dequeue()) for _ in swept])
    lost = [await enqueue(queue, k) for k in kinds if k == "lost worker"]
    # Behind the swept ones, which wait again.
    waiting = [await queue.dequeue() for _ in swept + lost]
    for job in waiting[: len(swept)]:
        await queue.redis.lmove(queue._active, queue._queued, "LEFT", "RIGHT")
    lost = [await lose_worker(queue, job) for job in waiting[len(swept) :]]
    for job in [await enqueue(queue, k) for k in kinds if k == "waiting abort"]:
        await queue.abort(job, "on purpose")
    running = [asyncio.create_task(w.start()) for w in workers]
    for job in lost:
        await queue.abort(job, "swept")
        await queue.retry(job, "swept")
    # What is kept nowhere can't be told by a replica that did not see it, so it comes before any trouble.
    rest = [k for k in kinds if k not in ("swept", "lost worker", "waiting abort")]
    for kind in sorted(rest, key=lambda k: k != "kept nowhere"):
        job = await enqueue(queue, kind)
        if kind == "running abort":
            to_abort.append(job)
        if pace:
            await asyncio.sleep(1 / pace)
    # The same key once more, after the end of its first job.
    again = await queue.enqueue("work", key="again", source="api")
    aborting = asyncio.create_task(abort_running(queue, to_abort))
    await again.refresh(until_complete=30)
    await asyncio.sleep(0.5)  # time to look: the payload of the second takes the place of the first's
    await queue.enqueue("work", key="again", source="api")
    await aborting

    ends = {"complete", "failed", "aborted"}
    while any(s not in ends for key, s in queue.status.items() if key not in queue.stay):
        await asyncio.sleep(0.1)
    for w in workers:
        await w.stop()
    await asyncio.gather(*running)
    print(json.dumps({
        "enqueued": queue.enqueued, "transitions": queue.transitions, "waits": len(queue.waits),
        "restarts": queue.restarts, "wait_seconds": sum(queue.waits), "runs": len(queue.runs), "run_seconds": sum(queue.runs),
        "kept": queue.kept(),
    }), flush=True)  # fmt: skip
    await queue.disconnect()


if __name__ == "__main__":
    logging.getLogger("saq").setLevel(logging.CRITICAL)
    url, name, count, pace, *kinds = sys.argv[1:]
    asyncio.run(main(url, name, int(count), float(pace), kinds[0].split(",") if kinds else KINDS))
