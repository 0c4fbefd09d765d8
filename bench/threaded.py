"""Who runs functions on threads, from submit to result; and what it costs a thread without an event loop to submit a coroutine.

All threads run before the first submit. `alone` is no pool: threads that take the next number and sleep. No pool can be faster.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor

import cabrank
import cabrank.blocking
from bench.contenders import Call, Job, dispatcher


def noop(number: int) -> None:
    """Nothing."""


def sleeps(number: int) -> None:
    """Blocks its thread for 1 ms."""
    del number
    time.sleep(0.001)


async def submit_results(call: Call, jobs: int, workers: int) -> float:
    """Cabrank's dispatcher."""
    async with dispatcher(workers, jobs + workers) as ours:
        for handle in [await ours.submit(sleeps, number) for number in range(workers)]:
            await handle.result()
        began = time.perf_counter()
        for handle in [await ours.submit(call, number) for number in range(jobs)]:
            await handle.result()
        return time.perf_counter() - began


async def executor(call: Call, jobs: int, workers: int) -> float:
    """`ThreadPoolExecutor`."""
    return _through(ThreadPoolExecutor(workers), call, jobs, workers)


async def our_executor(call: Call, jobs: int, workers: int) -> float:
    """`DispatcherExecutor`, bounded."""
    return _through(cabrank.DispatcherExecutor(workers, max_queue=jobs + workers), call, jobs, workers)


async def alone(call: Call, jobs: int, workers: int) -> float:
    """No pool."""
    numbers = iter(range(jobs))

    def run() -> None:
        for number in numbers:
            call(number)

    return _together(run, workers)


async def pool_of(job: Job, jobs: int, workers: int) -> float:
    """`ThreadPoolExecutor` for the table of coroutines: the same job as a function; nobody asks for a result."""
    assert job.call is not None  # noqa: S101 -- for the type checker
    began = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        for number in range(jobs):
            pool.submit(job.call, number)
    return time.perf_counter() - began


def _through(pool: Executor, call: Call, jobs: int, workers: int) -> float:
    with pool:
        list(pool.map(sleeps, range(workers)))
        began = time.perf_counter()
        for future in [pool.submit(call, number) for number in range(jobs)]:
            future.result()
        return time.perf_counter() - began


def blocking(job: Job, jobs: int, threads: int) -> float:
    """`cabrank.blocking`: seconds until `threads` threads have submitted, each its part, one by one."""
    with cabrank.blocking.Dispatcher(max_workers=100, max_queue=jobs) as front:
        each = jobs // threads

        def submit() -> None:
            for number in range(each):
                front.submit(job.work, number)

        took_s = _together(submit, threads)
        front.join()
    return took_s


def _together(run: Callable[[], None], threads: int) -> float:
    running = [threading.Thread(target=run) for _ in range(threads)]
    began = time.perf_counter()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return time.perf_counter() - began
