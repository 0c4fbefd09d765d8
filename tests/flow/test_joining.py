"""`join` waits for what waits and what runs, and for nothing else."""

from __future__ import annotations

import asyncio

import pytest

import cabrank
from cabrank.testing.clock import FakeClock


async def test_joining_an_idle_dispatcher_returns(store: str) -> None:
    async with cabrank.Dispatcher(cabrank.App(), store=store) as dispatcher:
        await dispatcher.join()


async def test_joining_waits_for_jobs_that_jobs_submit(store: str) -> None:
    app = cabrank.App()
    dispatchers: list[cabrank.Dispatcher] = []
    ran: list[int] = []

    @app.job
    async def count_down(number: int) -> None:
        ran.append(number)
        if number:
            await dispatchers[0].submit(count_down, number - 1)

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        dispatchers.append(dispatcher)
        await dispatcher.submit(count_down, 10)
        await dispatcher.join()
    assert ran == list(range(10, -1, -1))


async def test_what_is_settled_while_the_store_is_asked_is_not_missed(store: str, clock: FakeClock) -> None:
    app = cabrank.App()

    @app.job
    async def work() -> None: ...

    async with cabrank.Dispatcher(app, store=store, clock=clock) as dispatcher:
        engine = dispatcher.engine
        since = engine.progressed
        await (await dispatcher.submit(work)).result()
        async with asyncio.timeout(30):
            await engine.progress(3600, since=since)  # on a clock that stands still
            assert engine.progressed > since


async def test_joining_waits_for_retries(store: str) -> None:
    app = cabrank.App()
    runs: list[int] = []

    @app.job(retry=cabrank.Retry(attempts=4, base_s=0))
    async def unlucky(*, job: cabrank.JobContext = cabrank.context()) -> None:
        runs.append(job.run)
        raise cabrank.TryAgain

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        await dispatcher.submit(unlucky)
        await dispatcher.join()
    assert runs == [1, 2, 3, 4]


async def test_a_stop_ends_a_join(store: str) -> None:
    app = cabrank.App()
    started = asyncio.Event()

    @app.job
    async def work() -> None:
        started.set()
        await asyncio.get_running_loop().create_future()

    async with cabrank.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        await dispatcher.submit(work)
        await dispatcher.submit(work)
        await started.wait()
        async with asyncio.TaskGroup() as group:
            join = group.create_task(stopped(dispatcher))
            await asyncio.sleep(0)
            await dispatcher.stop(grace_s=0)
        assert join.result()
    assert await stopped(dispatcher)


async def stopped(dispatcher: cabrank.Dispatcher) -> bool:
    try:
        await dispatcher.join()
    except cabrank.IntakeClosed:
        return True
    return False


async def test_a_join_is_refused_before_it_is_entered(store: str) -> None:
    with pytest.raises(cabrank.NotEntered):
        await cabrank.Dispatcher(store=store).join()


async def test_several_may_join_and_one_may_give_up(store: str) -> None:
    app = cabrank.App()
    go = asyncio.Event()

    @app.job
    async def work() -> None:
        await go.wait()

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        await dispatcher.submit(work)
        async with asyncio.TaskGroup() as group:
            joins = [group.create_task(dispatcher.join()) for _ in range(3)]
            await asyncio.sleep(0)
            joins[0].cancel()
            await asyncio.sleep(0)
            assert not joins[1].done()
            go.set()
        assert [join.cancelled() for join in joins] == [True, False, False]


async def test_two_dispatchers_share_the_jobs_of_one_file(durable: str) -> None:
    """A stop of one hands what it held to the other; each job is run once."""
    app = cabrank.App()
    ran: list[int] = []

    @app.job
    async def note(number: int) -> int:
        await asyncio.sleep(0)
        ran.append(number)
        return number

    async with (
        cabrank.Dispatcher(app, store=durable, max_workers=4) as one,
        cabrank.Dispatcher(app, store=durable, max_workers=4) as other,
    ):
        handles = await one.submit_many(note, range(300))
        mine = await other.submit(note, 300)
        await one.join()
        await other.join()
        assert await mine.result() == 300
        assert await handles[42].result() == 42
    assert sorted(ran) == list(range(301))
