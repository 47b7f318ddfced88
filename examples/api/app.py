"""A small API like the one that refrakt-gate guards: two routes that start jobs, and some that don't.

Without QUEUE_URL it enqueues nothing, and its answers say so.
"""

from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

import jobs

queue = jobs.connect()


@asynccontextmanager
async def lifespan(app: FastAPI):
    yield
    if queue is not None:
        await queue.disconnect()


app = FastAPI(title="refrakt-gate example API", lifespan=lifespan)

Seconds = Annotated[float, Field(ge=0, le=3600)]


class Run(BaseModel):
    seconds: Seconds = 1.0


class Chat(BaseModel):
    message: str = ""
    start_job: bool = False
    seconds: Seconds = 1.0


def accepted(key: str | None) -> dict:
    if key is None:
        return {"job": None, "note": "QUEUE_URL is unset: nothing was enqueued"}
    return {"job": key, "status": f"/jobs/{key}"}


@app.post("/run", status_code=202)
async def run(body: Run | None = None) -> dict:
    """Starts a training job."""
    seconds = (body or Run()).seconds
    return accepted(await jobs.enqueue(queue, "api", seconds))


@app.post("/assistant")
async def assistant(body: Chat | None = None) -> dict:
    """Repeats the message, and starts a training job if the request asks for one."""
    chat = body or Chat()
    answer = {"reply": f"You said: {chat.message}"}
    if chat.start_job:
        answer |= accepted(await jobs.enqueue(queue, "assistant", chat.seconds))
    return answer


@app.get("/jobs/{key}")
async def job(key: str) -> dict:
    """The state of a job. This route is not below /run, so a request costs no token."""
    found = await queue.job(key) if queue is not None else None
    if found is None:
        raise HTTPException(404, "no such job")
    return {"job": key, "status": found.status}


@app.get("/ping")
async def ping() -> dict:
    return {"ping": "pong"}
