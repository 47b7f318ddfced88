"""The job queue: where it is, and what a job does."""

import asyncio
import os

from saq.queue.redis import RedisQueue

# SAQ ends a job after its timeout, which is 10 s by default.
TIMEOUT_MARGIN = 30


def connect() -> RedisQueue | None:
    """Returns the queue at QUEUE_URL (redis:// or unix://), or None if that is unset."""
    url = os.environ.get("QUEUE_URL")
    if not url:
        return None
    return RedisQueue.from_url(url, name=os.environ.get("QUEUE_NAME", "default"))


async def enqueue(queue: RedisQueue | None, source: str, seconds: float) -> str | None:
    """Enqueues one training job and returns its key, or None without a queue."""
    if queue is None:
        return None
    job = await queue.enqueue("train", source=source, seconds=seconds, timeout=int(seconds) + TIMEOUT_MARGIN)
    return job.key


async def train(ctx: dict, *, source: str, seconds: float = 1.0) -> dict:
    """Stands for a training job. It only sleeps."""
    await asyncio.sleep(seconds)
    return {"source": source, "seconds": seconds}
