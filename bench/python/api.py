"""An API with one route. With LIMITER_REDIS_URL, fastapi-limiter allows an address 30 requests a minute."""

import os
from contextlib import asynccontextmanager

import redis.asyncio as redis
from fastapi import Depends, FastAPI
from fastapi_limiter import FastAPILimiter
from fastapi_limiter.depends import RateLimiter

url = os.environ.get("LIMITER_REDIS_URL")


@asynccontextmanager
async def lifespan(app: FastAPI):
    if url:
        await FastAPILimiter.init(redis.from_url(url))
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/assistant", dependencies=[Depends(RateLimiter(times=30, minutes=1))] if url else [])
async def assistant() -> dict:
    return {"reply": "hello"}
