"""Who runs functions in worker processes, from submit to result: cabrank's ways, and the pools that Python programs use.

All processes run before the clock starts. Each returns the seconds until every result is here.
"""

from __future__ import annotations

import importlib
import multiprocessing
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

import cabrank

CHUNK = 1_000  # jobs of one call, where jobs are chunked
app = cabrank.App()


def noop(number: int) -> None:
    """Nothing."""


def spins(number: int) -> None:
    """1 ms of CPU."""
    del number
    ends_at = time.process_time() + 0.001
    while time.process_time() < ends_at:
        pass


@app.job(kind="process", name="noop")
def _noop(number: int) -> None:
    noop(number)


@app.job(kind="process", name="spins")
def _spins(number: int) -> None:
    spins(number)


@app.job(kind="process", name="noops", queue="chunks", batch=cabrank.Batch(jobs=CHUNK, wait_s=0.01))
def _noops(numbers: list[int]) -> None:
    for number in numbers:
        noop(number)


@app.job(kind="process", name="spins_all", queue="chunks", batch=cabrank.Batch(jobs=CHUNK // 50, wait_s=0.01))
def _spins_all(numbers: list[int]) -> None:
    for number in numbers:
        spins(number)


Call = Callable[[int], None]
HANDLERS: dict[Call, tuple[Any, Any]] = {noop: (_noop, _noops), spins: (_spins, _spins_all)}


def _size(call: Call) -> int:
    return CHUNK if call is noop else CHUNK // 50


async def submit(call: Call, jobs: int, workers: int) -> float:
    """A handler of an app, one by one, each result asked for."""
    return await _submitted(HANDLERS[call][0], jobs, workers)


async def submit_isolated(call: Call, jobs: int, workers: int) -> float:
    """A bare function, pickled, one by one, each result asked for."""
    return await _submitted(cabrank.isolated(call), jobs, workers)


async def submit_many(call: Call, jobs: int, workers: int) -> float:
    """A handler, in bulk."""
    return await _many(HANDLERS[call][0], jobs, workers)


async def batches(call: Call, jobs: int, workers: int) -> float:
    """A batch handler, in bulk."""
    return await _many(HANDLERS[call][1], jobs, workers)


async def _submitted(function: Any, jobs: int, workers: int) -> float:
    async with cabrank.Dispatcher(app, max_workers=workers, max_queue=jobs + workers) as ours:
        for handle in [await ours.submit(function, number) for number in range(workers)]:
            await handle.result()
        began = time.perf_counter()
        for handle in [await ours.submit(function, number) for number in range(jobs)]:
            await handle.result()
        return time.perf_counter() - began


async def _many(function: Any, jobs: int, workers: int) -> float:
    async with cabrank.Dispatcher(app, max_workers=workers, max_queue=jobs + workers) as ours:
        await ours.submit_many(function, range(workers * 2))
        await ours.join()
        began = time.perf_counter()
        await ours.submit_many(function, range(jobs))
        await ours.join()
        return time.perf_counter() - began


async def our_executor(call: Call, jobs: int, workers: int) -> float:
    """`DispatcherExecutor(kind="process")`."""
    return _through(cabrank.DispatcherExecutor(workers, kind="process", max_queue=jobs + workers), call, jobs, workers)


async def our_executor_chunked(call: Call, jobs: int, workers: int) -> float:
    """The same, `map` with a chunk size."""
    return _mapped(cabrank.DispatcherExecutor(workers, kind="process", max_queue=jobs + workers), call, jobs, workers)


async def executor(call: Call, jobs: int, workers: int) -> float:
    """`ProcessPoolExecutor`."""
    return _through(ProcessPoolExecutor(workers), call, jobs, workers)


async def executor_chunked(call: Call, jobs: int, workers: int) -> float:
    """`ProcessPoolExecutor.map` with a chunk size."""
    return _mapped(ProcessPoolExecutor(workers), call, jobs, workers)


async def loky(call: Call, jobs: int, workers: int) -> float:
    """`loky`."""
    return _through(_loky(workers), call, jobs, workers)


async def loky_chunked(call: Call, jobs: int, workers: int) -> float:
    """`loky`, `map` with a chunk size."""
    return _mapped(_loky(workers), call, jobs, workers)


async def pool(call: Call, jobs: int, workers: int) -> float:
    """`multiprocessing.Pool.apply_async`."""
    with multiprocessing.Pool(workers) as its:
        its.map(call, range(workers), 1)
        began = time.perf_counter()
        for result in [its.apply_async(call, (number,)) for number in range(jobs)]:
            result.get()
        return time.perf_counter() - began


async def pool_chunked(call: Call, jobs: int, workers: int) -> float:
    """`multiprocessing.Pool.map` with a chunk size."""
    with multiprocessing.Pool(workers) as its:
        return _timed(lambda numbers: its.map(call, numbers, _size(call)), jobs, workers)


async def mpire(call: Call, jobs: int, workers: int) -> float:
    """`mpire`, chunks of one."""
    with _mpire(workers) as its:
        return _timed(lambda numbers: its.map(call, numbers, chunk_size=1), jobs, workers)


async def mpire_chunked(call: Call, jobs: int, workers: int) -> float:
    """`mpire` with a chunk size."""
    with _mpire(workers) as its:
        return _timed(lambda numbers: its.map(call, numbers, chunk_size=_size(call)), jobs, workers)


def _through(its: Executor, call: Call, jobs: int, workers: int) -> float:
    with its:
        list(its.map(call, range(workers)))
        began = time.perf_counter()
        for future in [its.submit(call, number) for number in range(jobs)]:
            future.result()
        return time.perf_counter() - began


def _mapped(its: Executor, call: Call, jobs: int, workers: int) -> float:
    with its:
        return _timed(lambda numbers: list(its.map(call, numbers, chunksize=_size(call))), jobs, workers)


def _timed(run: Callable[[Iterable[int]], object], jobs: int, workers: int) -> float:
    run(range(workers * 2))
    began = time.perf_counter()
    run(range(jobs))
    return time.perf_counter() - began


def _loky(workers: int) -> Any:
    return importlib.import_module("loky").ProcessPoolExecutor(workers)


def _mpire(workers: int) -> Any:
    return importlib.import_module("mpire").WorkerPool(n_jobs=workers, keep_alive=True)
