"""Puts a real SAQ queue into a state and prints what the gate should see, as JSON.

Usage: saq_scenarios.py REDIS_URL QUEUE SCENARIO
The clock SAQ reads stands still at `base` plus an offset that the scenario moves,
so that a job can have waited for minutes without anybody waiting.
"""

import asyncio
import json
import sys
import time

from saq.queue.redis import RedisQueue
from saq.worker import Worker

BASE = int(time.time())
OFFSET = 0
time.time = lambda: float(BASE + OFFSET)


def at(seconds):
    global OFFSET
    OFFSET = seconds


def millis(seconds):
    return (BASE + seconds) * 1000


async def fail(ctx):
    raise RuntimeError("on purpose")


async def attempt(queue):
    """One job taken and run by SAQ's own worker."""
    await Worker(queue, functions=[fail]).process()


async def move_due(queue):
    """SAQ's scheduler, without the lock that makes it run once a second."""
    await queue.redis.delete(queue.namespace("schedule"))
    return await queue.schedule()


async def keys(queue):
    job = await queue.enqueue("fail")
    return {
        "queued": queue._queued,
        "active": queue._active,
        "stats": queue._stats,
        "element": (await queue.redis.lindex(queue._queued, 0)).decode(),
        "payload": job.id,
    }


async def fresh(queue):
    at(-100)
    await queue.enqueue("fail")
    at(-50)
    await queue.enqueue("fail")
    at(0)
    await queue.enqueue("fail")
    return {"pending": 3, "since": millis(-100)}


async def updated(queue):
    """An update of a waiting job does not make the job younger."""
    at(-100)
    job = await queue.enqueue("fail", retry_delay=20)
    at(-30)
    await job.update(meta={"position": 3})
    return {"pending": 1, "since": millis(-100)}


async def scheduled_later(queue):
    await queue.enqueue("fail", scheduled=BASE + 1000)
    await move_due(queue)
    return {"pending": 0}


async def scheduled_due(queue):
    at(-100)
    await queue.enqueue("fail", scheduled=BASE - 40)
    at(0)
    await move_due(queue)
    return {"pending": 1, "since": millis(-40)}


async def retried(queue):
    at(-100)
    await queue.enqueue("fail", retries=3)
    at(-60)
    await attempt(queue)
    at(0)
    return {"pending": 1, "since": millis(-60)}


async def retried_with_delay(queue):
    at(-100)
    await queue.enqueue("fail", retries=3, retry_delay=20.5)
    at(-60)
    await attempt(queue)
    at(0)
    await move_due(queue)
    return {"pending": 1, "since": millis(-60) + 20500}


async def waiting_for_retry(queue):
    at(-100)
    await queue.enqueue("fail", retries=3, retry_delay=1000)
    await attempt(queue)
    at(0)
    await move_due(queue)
    return {"pending": 0}


async def backoff(queue, **limit):
    at(-100)
    await queue.enqueue("fail", retries=5, retry_delay=4, **limit)
    at(-90)
    await attempt(queue)
    at(-80)
    await move_due(queue)
    await attempt(queue)
    at(0)
    await move_due(queue)


async def retried_with_backoff(queue):
    await backoff(queue, retry_backoff=True)
    return {"pending": 1, "since": millis(-80 + 8)}


async def retried_with_bounded_backoff(queue):
    await backoff(queue, retry_backoff=5)
    return {"pending": 1, "since": millis(-80 + 5)}


async def swept(queue):
    """Taken, never marked active, given back by the sweeper: a retry without an attempt."""
    at(-100)
    await queue.enqueue("fail", retry_delay=20)
    await queue.dequeue()
    at(-60)
    await queue.sweep(abort=0.05)
    at(0)
    await move_due(queue)
    return {"pending": 1, "since": millis(-40)}


async def taken(queue):
    at(-100)
    for _ in range(3):
        await queue.enqueue("fail")
    await queue.dequeue()
    at(-50)
    await queue.enqueue("fail")
    await queue.dequeue()
    at(0)
    return {"pending": 2, "running": 2, "since": millis(-100)}


async def workers(queue):
    for _ in range(2):
        await Worker(queue, functions=[fail]).worker_info(ttl=60)
    # Its entry is out of date, and stays until another worker reports.
    at(-100)
    await Worker(queue, functions=[fail]).worker_info(ttl=60)
    return {"pending": 0, "workers": 2}


async def main():
    url, name, scenario = sys.argv[1:]
    queue = RedisQueue.from_url(url, name=name)
    await queue.connect()
    try:
        print(json.dumps(await globals()[scenario](queue)))
    finally:
        await queue.disconnect()


asyncio.run(main())
