"""A handler says how far it is, from wherever it runs; who asks sees the latest, and many reports cost few writes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest

import cabrank
from cabrank.testing import FakeClock
from tests.faults.program import app as program
from tests.faults.program import reports, reports_and_waits

MANY = 20_000
go = threading.Event()


@pytest.fixture(autouse=True)
async def _let_go() -> AsyncGenerator[None]:
    go.clear()
    yield
    go.set()


async def seen(handle: cabrank.JobHandle[Any], fraction: float) -> cabrank.Progress:
    """The job's progress, once it is that."""
    async with asyncio.timeout(60):
        while (progress := await handle.progress()) is None or progress.fraction != fraction:
            await asyncio.sleep(0.01)
    return progress


async def test_the_latest_report_of_a_coroutine_is_seen_while_it_runs(store: str) -> None:
    app, on = cabrank.App(), asyncio.Event()

    @app.job
    async def copy(*, job: cabrank.JobContext = cabrank.context()) -> None:
        for done in range(MANY):
            job.progress(done / MANY, "copying")
        job.progress(0.5, "half of it \ud800")
        await on.wait()

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(copy)
        progress = await seen(handle, 0.5)
        turns = dispatcher.engine.counters.turns
        assert (progress.run, progress.note) == (1, "half of it \\ud800")
        assert progress.at > 0
        assert (await dispatcher.handle(handle.id).progress()) == progress
        on.set()
        await handle.result()
        assert await handle.progress() is None, "it does not run any more"
        assert turns < 20, "many reports go with one turn"


async def test_a_report_goes_with_the_next_turn_or_makes_one_of_its_own(store: str, clock: FakeClock) -> None:
    app, on, said = cabrank.App(), asyncio.Event(), asyncio.Event()

    @app.job
    async def copy(*, job: cabrank.JobContext = cabrank.context()) -> None:
        job.progress(0.25)
        said.set()
        await on.wait()

    async with cabrank.Dispatcher(app, store=store, clock=clock) as dispatcher:
        handle = await dispatcher.submit(copy)
        await said.wait()
        await clock.advance(1)
        assert (await seen(handle, 0.25)).note == ""
        on.set()
        await handle.result()


async def test_a_thread_reports(store: str) -> None:
    app = cabrank.App()

    @app.job
    def copy(*, job: cabrank.JobContext = cabrank.context()) -> None:
        for done in range(MANY):
            job.progress(done / MANY)
        job.progress(1)
        go.wait()

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(copy)
        await seen(handle, 1.0)
        go.set()
        await handle.result()


async def test_a_worker_process_reports(store: str, tmp_path: object) -> None:
    where = f"{tmp_path}/go"
    async with cabrank.Dispatcher(program, store=store) as dispatcher:
        handle = await dispatcher.submit(reports, where)
        assert (await seen(handle, 0.75)).note == "nearly"
        with open(where, "w", encoding="ascii"):  # noqa: ASYNC230, PTH123 -- it is made, that is all
            pass
        assert await handle.result() == MANY


async def test_a_process_that_is_told_to_stop_while_it_reports_ends(store: str) -> None:
    async with cabrank.Dispatcher(program, store=store) as dispatcher:
        handle = await dispatcher.submit(reports_and_waits)
        await seen(handle, 0.5)
        assert await handle.cancel()
        with pytest.raises(cabrank.JobCancelled):
            await handle.result()
        again = await dispatcher.submit(reports_and_waits)
        await seen(again, 0.5)
        await again.cancel()


async def test_all_items_of_a_batch_are_as_far_as_their_call(store: str) -> None:
    app, on = cabrank.App(), asyncio.Event()

    @app.job(batch=cabrank.Batch(jobs=3, wait_s=60))
    async def pack(items: list[int], *, job: cabrank.JobContext = cabrank.context()) -> None:
        job.progress(0.5)
        await on.wait()

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        for handle in await dispatcher.submit_many(pack, range(3)):
            await seen(handle, 0.5)
        on.set()


async def test_what_a_run_said_goes_with_it(store: str) -> None:
    app, second, on = cabrank.App(), asyncio.Event(), asyncio.Event()

    @app.job(retry=cabrank.Retry(base_s=0))
    async def copy(*, job: cabrank.JobContext = cabrank.context()) -> None:
        if job.run == 1:
            job.progress(0.9)
            raise LookupError
        second.set()
        await on.wait()

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(copy)
        await second.wait()
        assert await handle.progress() is None, "the second run has said nothing"
        on.set()


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), "half"])
async def test_what_is_no_fraction_is_refused(fraction: float) -> None:
    job = cabrank.JobContext(id="a", handler="h", run=1, attempt=1, deadline_at=0)
    with pytest.raises(cabrank.UsageError, match="a fraction from 0 to 1"):
        job.progress(fraction)
    job.progress(0.5, "x" * 1000)  # nobody listens where a test makes its own
