"""Enqueues and aborts jobs by real SAQ as it is told on stdin, and has SAQ's worker run them.

Usage: saq_jobs.py REDIS_URL SECONDS
A line is `enqueue KEY FAILURES` or `abort KEY`; each is answered by a line once it is done. A job runs for SECONDS, and
fails in its first FAILURES attempts. Four run at a time.
"""

import asyncio
import logging
import sys

from saq.queue.redis import RedisQueue
from saq.worker import Worker


async def main(url, seconds):
    async def work(ctx, *, failures=0):
        await asyncio.sleep(seconds)
        if ctx["job"].attempts <= failures:
            raise RuntimeError("on purpose")

    queue = RedisQueue.from_url(url, name="default")
    await queue.connect()
    # SAQ's own sweeper stays away: when it comes is a matter of luck.
    await queue.redis.set(queue.namespace("sweep"), 1, ex=3600)
    worker = Worker(queue, functions=[("work", work)], concurrency=4)
    worker.SIGNALS = []
    running = asyncio.create_task(worker.start())
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        what, key, *rest = line.split()
        if what == "enqueue":
            failures = int(rest[0])
            await queue.enqueue("work", key=key, failures=failures, retries=failures + 1)
        elif job := await queue.job(key):
            await queue.abort(job, "on purpose")
        print("done", flush=True)
    await worker.stop()
    await running
    await queue.disconnect()


logging.getLogger("saq").setLevel(logging.CRITICAL)
asyncio.run(main(sys.argv[1], float(sys.argv[2])))
