"""A dispatcher on a clock that the test moves: what is due runs, each at its own moment, and nothing runs before."""

from __future__ import annotations

import asyncio

import pytest

import cabrank
from cabrank.testing import FakeClock


async def test_retries_run_when_their_time_has_come_and_not_before(clock: FakeClock) -> None:
    app = cabrank.App()
    runs: list[float] = []
    began_at = clock.now()

    @app.job(retry=cabrank.Retry(attempts=5))
    async def unlucky() -> str:
        runs.append(clock.now() - began_at)
        if len(runs) < 4:
            raise cabrank.TryAgain(after_s=60 * len(runs))
        return "at last"

    async with cabrank.Dispatcher(app, clock=clock) as dispatcher:
        handle = await dispatcher.submit(unlucky)
        await clock.advance(0)
        assert runs == [0]
        await clock.advance(59.9)
        assert runs == [0]
        await clock.advance(0.1)
        assert runs == [0, pytest.approx(60)]
        await clock.advance(3_600)
        assert runs == pytest.approx([0, 60, 180, 360])
        assert await handle.result() == "at last"


async def test_a_delayed_job_runs_on_time_though_nothing_else_happens(clock: FakeClock) -> None:
    ran: list[float] = []

    async def note() -> None:
        ran.append(clock.monotonic())

    async with cabrank.Dispatcher(clock=clock) as dispatcher:
        await dispatcher.submit(note, delay_s=86_400 / 24)
        await dispatcher.submit(note, delay_s=10)
        await clock.advance(3_600)
    assert ran == pytest.approx([10, 3_600])


async def test_a_job_that_is_given_up_is_dead_after_its_tries(clock: FakeClock) -> None:
    app = cabrank.App()

    @app.job(retry=cabrank.Retry(attempts=10, cap_s=300))
    async def fails() -> None:
        raise LookupError

    async with cabrank.Dispatcher(app, clock=clock) as dispatcher:
        handle = await dispatcher.submit(fails)
        await clock.advance(3_600)
        assert handle.settled
        with pytest.raises(cabrank.JobFailed, match="failed"):
            await handle.result()


async def test_a_timeout_comes_with_the_clock(clock: FakeClock) -> None:
    app = cabrank.App()

    @app.job(timeout_s=30, retry=cabrank.Retry(attempts=1))
    async def hangs() -> None:
        await asyncio.Event().wait()

    async with cabrank.Dispatcher(app, clock=clock) as dispatcher:
        handle = await dispatcher.submit(hangs)
        await clock.advance(29)
        assert not handle.settled
        await clock.advance(1.1)
        assert handle.settled


async def test_the_grace_of_a_stop_ends_with_the_clock(store: str, clock: FakeClock) -> None:
    app, started = cabrank.App(), asyncio.Event()

    @app.job
    async def hangs() -> None:
        started.set()
        await asyncio.Event().wait()

    async with cabrank.Dispatcher(app, store=store, clock=clock) as dispatcher:
        await dispatcher.submit(hangs)
        await started.wait()
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(dispatcher.stop(grace_s=25))
            await clock.advance(24.9)
            assert not stopping.done()
            await clock.advance(0.2)


async def test_a_join_needs_no_time_where_jobs_end_here(store: str, clock: FakeClock) -> None:
    app = cabrank.App()

    @app.job
    async def work(number: int) -> None:
        await asyncio.sleep(0)

    async with cabrank.Dispatcher(app, store=store, clock=clock) as dispatcher:
        await dispatcher.submit_many(work, range(50))
        await dispatcher.join()
