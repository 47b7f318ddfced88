"""Runs jobs of which SAQ keeps nothing once they have ended (ttl=-1).

Usage: saq_vanishing.py REDIS_URL QUEUE COUNT MILLISECONDS PER_SECOND
COUNT jobs come at random, PER_SECOND of them in the mean. Each runs for MILLISECONDS.
"""

import asyncio
import random
import sys

from redis import asyncio as aioredis
from saq.queue.redis import RedisQueue
from saq.worker import Worker


async def run(ctx, *, milliseconds):
    await asyncio.sleep(milliseconds / 1000)


async def main(url, name, count, milliseconds, per_second):
    random.seed(1)
    queue = RedisQueue(aioredis.from_url(url), name=name)
    worker = Worker(queue, functions=[run], concurrency=20)
    working = asyncio.create_task(worker.start())
    for _ in range(count):
        await queue.enqueue("run", milliseconds=milliseconds, ttl=-1)
        await asyncio.sleep(random.expovariate(per_second))
    while await queue.count("incomplete"):
        await asyncio.sleep(0.05)
    await worker.stop()
    await working
    await queue.disconnect()


url, name, count, milliseconds, per_second = sys.argv[1:]
asyncio.run(main(url, name, int(count), int(milliseconds), float(per_second)))
