"""What most people write today: an endpoint that puts each payload onto an `asyncio.Queue` in memory, and workers that take them off.

The same document, workers and bound as the others. `star` is Starlette with msgspec, `fast` is FastAPI with pydantic.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator

import msgspec
import pydantic
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bench.noop_app import Document

WORKERS = int(os.environ["MAX_WORKERS"])
line: asyncio.Queue[object] = asyncio.Queue(int(os.environ["MAX_QUEUE"]))
decode = msgspec.json.Decoder(Document).decode


async def work() -> None:
    while True:
        await line.get()


@contextlib.asynccontextmanager
async def lifespan(_: object) -> AsyncGenerator[None]:
    workers = [asyncio.create_task(work()) for _ in range(WORKERS)]
    yield
    for worker in workers:
        worker.cancel()


async def telemetry(request: Request) -> Response:
    try:
        document = decode(await request.body())
    except msgspec.DecodeError as error:
        return JSONResponse({"detail": str(error)}, 400)
    for payload in document.data:
        await line.put(payload)
    return JSONResponse({"taken": len(document.data)}, 202)


star = Starlette(routes=[Route("/telemetry", telemetry, methods=["POST"])], lifespan=lifespan)
fast = FastAPI(lifespan=lifespan)


class FastPayload(pydantic.BaseModel):
    device: str
    body: str


class FastDocument(pydantic.BaseModel):
    version: str
    token: str
    data: list[FastPayload]


@fast.post("/telemetry", status_code=202)
async def fast_telemetry(document: FastDocument) -> dict[str, int]:
    for payload in document.data:
        await line.put(payload)
    return {"taken": len(document.data)}
