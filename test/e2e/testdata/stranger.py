"""An API that knows nothing of the gate. It answers every path. JOBS says which paths begin a job, and in which SAQ queue:
"/v1/images=images,/v1/videos=videos"."""

import os
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response
from saq.queue.redis import RedisQueue

queues = {}


@asynccontextmanager
async def lifespan(_: FastAPI):
    for entry in filter(None, os.environ.get("JOBS", "").split(",")):
        path, name = entry.split("=")
        queues[path] = RedisQueue.from_url(os.environ["QUEUE_URL"], name=name)
    yield
    for queue in queues.values():
        await queue.disconnect()


app = FastAPI(lifespan=lifespan)


@app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
async def serve(path: str, response: Response) -> dict:
    for prefix, queue in queues.items():
        if ("/" + path).startswith(prefix):
            job = await queue.enqueue("work", timeout=60)
            response.status_code = 202
            return {"job": job.key}
    return {"served": path}
