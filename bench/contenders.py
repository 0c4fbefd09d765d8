"""Who runs coroutines in the process: cabrank's ways, and what Python programs use today. Each returns when all jobs have run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

import aiojobs
import anyio

import cabrank

Work = Callable[[int], Coroutine[Any, Any, None]]
Call = Callable[[int], None]
ROOM = 10_000  # jobs that may wait, wherever there is a bound
HUNDRED = 100

app = cabrank.App()
RETRY = cabrank.Retry(attempts=5)


class Job(NamedTuple):
    """One kind of job: as a coroutine function, as a handler with a retry policy, and as a plain function if it can be one."""

    title: str
    work: Work
    handler: Any
    call: Call | None


async def noop(number: int) -> None:
    """Nothing."""


def call_noop(number: int) -> None:
    """Nothing."""


async def suspends(number: int) -> None:
    """Gives the event loop one turn."""
    del number
    await asyncio.sleep(0)


async def microsecond(number: int) -> None:
    """About 1 µs of work."""
    del number
    sum(range(HUNDRED))


def call_microsecond(number: int) -> None:
    """About 1 µs of work."""
    del number
    sum(range(HUNDRED))


async def sleeps(number: int) -> None:
    """Waits for 10 ms."""
    del number
    await asyncio.sleep(0.01)


NOOP = Job("no-op", noop, app.job(retry=RETRY)(noop), call_noop)
SUSPENDS = Job("suspends once", suspends, app.job(retry=RETRY)(suspends), None)
MICROSECOND = Job("about 1 µs", microsecond, app.job(retry=RETRY)(microsecond), call_microsecond)
SLEEPS = Job("sleeps 10 ms", sleeps, app.job(retry=RETRY)(sleeps), None)


def dispatcher(workers: int, room: int = ROOM) -> cabrank.Dispatcher:
    """One with a bound, and with events that somebody listens to."""
    made = cabrank.Dispatcher(app, store="memory://", max_workers=workers, max_queue=room)
    made.engine.events.subscribe(lambda _: None)
    return made


async def submit_many(job: Job, jobs: int, workers: int) -> float:
    """A handler with a retry policy, in bulk."""
    return await _in_bulk(job.handler, jobs, workers)


async def submit_many_bare(job: Job, jobs: int, workers: int) -> float:
    """A function that no app registered, in bulk."""
    return await _in_bulk(job.work, jobs, workers)


async def submit(job: Job, jobs: int, workers: int) -> float:
    """A handler with a retry policy, one by one, each with its handle."""
    return await _one_by_one(job.handler, jobs, workers)


async def submit_bare(job: Job, jobs: int, workers: int) -> float:
    """A function that no app registered, one by one, each with its handle."""
    return await _one_by_one(job.work, jobs, workers)


async def _in_bulk(function: Any, jobs: int, workers: int) -> float:
    async with dispatcher(workers) as ours:
        began = time.perf_counter()
        await ours.submit_many(function, range(jobs))
        await ours.join()
        return time.perf_counter() - began


async def _one_by_one(function: Any, jobs: int, workers: int) -> float:
    async with dispatcher(workers) as ours:
        began = time.perf_counter()
        for number in range(jobs):
            await ours.submit(function, number)
        await ours.join()
        return time.perf_counter() - began


async def queue_workers(job: Job, jobs: int, workers: int) -> float:
    """Workers on an `asyncio.Queue`."""
    queue: asyncio.Queue[int] = asyncio.Queue(ROOM)
    work = job.work

    async def worker() -> None:
        while True:
            number = await queue.get()
            try:
                await work(number)
            finally:
                queue.task_done()

    async with asyncio.TaskGroup() as group:
        started = [group.create_task(worker()) for _ in range(workers)]
        began = time.perf_counter()
        for number in range(jobs):
            await queue.put(number)
        await queue.join()
        took_s = time.perf_counter() - began
        for one in started:
            one.cancel()
    return took_s


async def semaphore(job: Job, jobs: int, workers: int) -> float:
    """A task for each job, behind a semaphore."""
    free = asyncio.Semaphore(workers)
    work = job.work

    async def run(number: int) -> None:
        try:
            await work(number)
        finally:
            free.release()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(jobs):
            await free.acquire()
            group.create_task(run(number))
    return time.perf_counter() - began


async def scheduler(job: Job, jobs: int, workers: int) -> float:
    """`aiojobs`, with its limit and its bound."""
    began = time.perf_counter()
    async with aiojobs.Scheduler(limit=workers, pending_limit=ROOM) as jobs_of:
        for number in range(jobs):
            await jobs_of.spawn(job.work(number))
    return time.perf_counter() - began


async def streams(job: Job, jobs: int, workers: int) -> float:
    """Workers on an anyio memory stream."""
    send, receive = anyio.create_memory_object_stream[int](ROOM)

    async def worker() -> None:
        async with receive.clone() as mine:
            async for number in mine:
                await job.work(number)

    began = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(workers):
            group.start_soon(worker)
        async with send:
            for number in range(jobs):
                await send.send(number)
    receive.close()
    return time.perf_counter() - began


async def start_latencies(begin: Callable[[asyncio.Future[float]], Awaitable[None]], count: int) -> list[float]:
    """Seconds from a submit into an idle pool to the start of the job."""
    taken: list[float] = []
    for _ in range(count):
        started: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        await begin(started)
        taken.append(await started - began)
    return taken
