"""Who runs jobs in the process: cabrank's ways, and what Python programs use today. Each returns when all jobs have run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio

import cabrank

Work = Callable[[int], Coroutine[Any, Any, None]]
Call = Callable[[int], None]
ROOM = 10_000  # jobs that may wait, wherever there is a bound
HUNDRED = 100


async def noop(number: int) -> None:
    """Nothing."""


async def suspends(number: int) -> None:
    """Gives the event loop one turn."""
    del number
    await asyncio.sleep(0)


async def microsecond(number: int) -> None:
    """About 1 µs of work."""
    del number
    sum(range(HUNDRED))


async def sleeps(number: int) -> None:
    """Waits for 10 ms."""
    del number
    await asyncio.sleep(0.01)


def thread_noop(number: int) -> None:
    """Nothing."""


def thread_sleeps(number: int) -> None:
    """Blocks its thread for 1 ms."""
    del number
    time.sleep(0.001)


def _open(workers: int) -> cabrank.Dispatcher:
    """With a bound, and with events that somebody listens to."""
    dispatcher = cabrank.Dispatcher(store="memory://", max_workers=workers, max_queue=ROOM)
    dispatcher.engine.events.subscribe(lambda _: None)
    return dispatcher


async def submit_many(work: Work | Call, jobs: int, workers: int) -> float:
    """Cabrank, in bulk."""
    async with _open(workers) as dispatcher:
        began = time.perf_counter()
        await dispatcher.submit_many(work, range(jobs))
        await dispatcher.join()
        return time.perf_counter() - began


async def submit(work: Work | Call, jobs: int, workers: int) -> float:
    """Cabrank, one by one, each with its handle."""
    async with _open(workers) as dispatcher:
        began = time.perf_counter()
        for number in range(jobs):
            await dispatcher.submit(work, number)
        await dispatcher.join()
        return time.perf_counter() - began


async def queue_workers(work: Work, jobs: int, workers: int) -> float:
    """Workers on an `asyncio.Queue`."""
    queue: asyncio.Queue[int] = asyncio.Queue(ROOM)

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


async def semaphore(work: Work, jobs: int, workers: int) -> float:
    """A task for each job, behind a semaphore."""
    free = asyncio.Semaphore(workers)

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


async def streams(work: Work, jobs: int, workers: int) -> float:
    """Workers on an anyio memory stream."""
    send, receive = anyio.create_memory_object_stream[int](ROOM)

    async def worker() -> None:
        async with receive.clone() as mine:
            async for number in mine:
                await work(number)

    began = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(workers):
            group.start_soon(worker)
        async with send:
            for number in range(jobs):
                await send.send(number)
    receive.close()
    return time.perf_counter() - began


async def executor(call: Call, jobs: int, workers: int) -> float:
    """`ThreadPoolExecutor`, from submit to result, its threads started before."""
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(time.sleep, [0.001] * workers))
        began = time.perf_counter()
        for future in [pool.submit(call, number) for number in range(jobs)]:
            future.result()
        return time.perf_counter() - began


async def submit_results(call: Call, jobs: int, workers: int) -> float:
    """Cabrank's threads, from submit to result."""
    async with cabrank.Dispatcher(store="memory://", max_workers=workers, max_queue=jobs) as dispatcher:
        for handle in [await dispatcher.submit(call, number) for number in range(workers)]:
            await handle.result()
        began = time.perf_counter()
        for handle in [await dispatcher.submit(call, number) for number in range(jobs)]:
            await handle.result()
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
