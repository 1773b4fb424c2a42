"""The front of `front`, for task queues whose clients are asyncio: FastAPI."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from bench.systems.async_job import store


class NewJob(BaseModel):
    start: str
    end: str


def fastapi_app(enqueue: Callable[[str], Awaitable[Any]], connect: Callable[[], Awaitable[Any]]) -> FastAPI:
    """Return the FastAPI application; `enqueue` puts a job's id on the queue, to which `connect` connects."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await connect()
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/jobs", status_code=202)
    async def jobs(given: NewJob) -> dict[str, str]:
        job = {"id": str(uuid.uuid4()), "status": "submitted", "start": given.start, "end": given.end}
        await store.hset(f"job.{job['id']}", mapping=job)
        await enqueue(job["id"])
        return job

    @app.get("/jobs_status")
    async def jobs_status(job_id: str) -> dict[str, str]:
        job: dict[str, str] = await store.hgetall(f"job.{job_id}")
        if not job:
            raise HTTPException(404)
        return job

    return app
