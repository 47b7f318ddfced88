"""enqueue.py COUNT SECONDS AGE SOURCE: enqueues jobs for the example worker, AGE seconds ago."""

import asyncio
import sys
from unittest import mock

import jobs
import saq.utils


async def main(count: int, seconds: float, age: float, source: str) -> None:
    queue = jobs.connect()
    # SAQ stamps jobs itself: an enqueuer whose clock is behind makes old ones.
    now = saq.utils.now
    with mock.patch("saq.queue.base.now", lambda: now() - int(age * 1000)):
        for _ in range(count):
            await jobs.enqueue(queue, source, seconds)
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
