"""The handlers of the contract as coroutine functions: the same names, the same results."""

from __future__ import annotations

import asyncio
import os

from cabrank.app import App
from cabrank.batch import Batch, Failure
from cabrank.inject import JobContext, context, resource
from cabrank.testing.worker_contract import functions
from cabrank.testing.worker_contract.functions import open_stock

ASYNC = App()


@ASYNC.job
async def adds(a: int, b: int) -> int:
    """See `functions`, as all that follow."""
    await asyncio.sleep(0)
    return functions.adds(a, b)


@ASYNC.job
async def nothing() -> None:
    """Does not suspend."""


@ASYNC.job
async def echoes(text: str) -> str:
    """Does not suspend."""
    return text


@ASYNC.job
async def raises(error: str, text: str) -> None:
    """Suspends first."""
    await asyncio.sleep(0)
    functions.raises(error, text)


@ASYNC.job
async def tries_again(after_s: float) -> None:
    """Does not suspend."""
    functions.tries_again(after_s)


@ASYNC.job
async def gives_up() -> None:
    """Does not suspend."""
    functions.gives_up()


@ASYNC.job
async def snoozes(for_s: float) -> None:
    """Does not suspend."""
    functions.snoozes(for_s)


@ASYNC.job
async def marks() -> int:
    """Suspends first."""
    await asyncio.sleep(0)
    return functions.marks()


@ASYNC.job
async def describes_its_run(*, job: JobContext = context()) -> tuple[str, str, int, int, float]:
    """Does not suspend."""
    return job.id, job.handler, job.run, job.attempt, job.deadline_at


@ASYNC.job
async def takes_a_resource(*, stock: list[str] = resource(open_stock)) -> str:
    """Does not suspend."""
    return stock[0]


@ASYNC.job
async def where() -> tuple[int, int]:
    """Does not suspend."""
    return functions.where()


@ASYNC.job(batch=Batch())
async def packs(items: list[int], *, job: JobContext = context()) -> list[Failure | None] | None:
    """Suspends first."""
    await asyncio.sleep(0)
    return functions.packs(items, job=job)


@ASYNC.job
async def held(entered: str, opened: str) -> str:
    """Waits at the gate as a coroutine does: the event loop goes on."""
    loop = asyncio.get_running_loop()
    through: asyncio.Future[None] = loop.create_future()
    gate = os.open(opened, os.O_RDONLY | os.O_NONBLOCK)
    loop.add_reader(gate, lambda: None if through.done() else through.set_result(None))
    try:
        with open(entered, "wb", buffering=0) as pipe:  # noqa: ASYNC230, PTH123 -- the gate reads at once
            pipe.write(b"x")
        await through
        os.read(gate, 1)
    finally:
        loop.remove_reader(gate)
        os.close(gate)
    return "let through"
