"""A paused queue starts nothing, in any process on its store; jobs are still taken on, and what runs goes on."""

from __future__ import annotations

import asyncio

import pytest

import cabrank
from cabrank.states import State


class Gate:
    """Jobs that say when they start and wait until all are let through."""

    def __init__(self) -> None:
        self.app = cabrank.App()
        self.go = asyncio.Event()
        self.started: asyncio.Queue[int] = asyncio.Queue()

        @self.app.job(queue="gate")
        async def work(number: int) -> int:
            self.started.put_nowait(number)
            await self.go.wait()
            return number

        @self.app.job(queue="other")
        async def elsewhere() -> str:
            return "done"

        self.work, self.elsewhere = work, elsewhere


@pytest.fixture
async def gate() -> Gate:
    return Gate()


async def test_a_paused_queue_starts_nothing_until_it_is_resumed(store: str, gate: Gate) -> None:
    gate.go.set()
    async with cabrank.Dispatcher(gate.app, store=store, max_workers=2) as dispatcher:
        await dispatcher.pause("gate")
        handles = [await dispatcher.submit(gate.work, number) for number in range(3)]
        assert await (await dispatcher.submit(gate.elsewhere)).result() == "done", "the other queues go on"
        assert gate.started.empty()
        assert [await handle.state() for handle in handles] == [State.WAITING] * 3
        await dispatcher.resume("gate")
        assert [await handle.result() for handle in handles] == [0, 1, 2]


async def test_what_runs_goes_on_and_what_was_claimed_and_has_not_started_is_handed_back(store: str, gate: Gate) -> None:
    async with cabrank.Dispatcher(gate.app, store=store, max_workers=2, settings=cabrank.Settings(reserve_s=60)) as dispatcher:
        gate.go.set()
        await (await dispatcher.submit(gate.work, 100)).result()  # so that the run time is known, and jobs are reserved
        await gate.started.get()
        gate.go.clear()
        handles = [await dispatcher.submit(gate.work, number) for number in range(6)]
        for number in range(2):
            assert await gate.started.get() == number
        await dispatcher.pause("gate")
        assert len(dispatcher.pools["gate"].queue) == 0
        gate.go.set()
        assert [await handle.result() for handle in handles[:2]] == [0, 1]
        while (await dispatcher.engine.store.tally())["gate"].running:
            await dispatcher.engine.progress(0.05, since=dispatcher.engine.progressed)
        assert [await handle.state() for handle in handles[2:]] == [State.WAITING] * 4
        assert gate.started.empty()
        await dispatcher.resume()
        assert sorted([await handle.result() for handle in handles[2:]]) == [2, 3, 4, 5]


async def test_all_queues_are_paused_and_resumed_at_once(store: str, gate: Gate) -> None:
    gate.go.set()
    async with cabrank.Dispatcher(gate.app, store=store) as dispatcher:
        await dispatcher.pause()
        here, there = await dispatcher.submit(gate.work, 1), await dispatcher.submit(gate.elsewhere)
        tally = await dispatcher.engine.store.tally()
        assert all(tally[queue].paused for queue in dispatcher.pools)
        assert [await here.state(), await there.state()] == [State.WAITING] * 2
        await dispatcher.resume()
        assert [await here.result(), await there.result()] == [1, "done"]


async def test_a_pause_survives_a_restart(durable: str, gate: Gate) -> None:
    gate.go.set()
    async with cabrank.Dispatcher(gate.app, store=durable) as dispatcher:
        await dispatcher.pause("gate")
        id = (await dispatcher.submit(gate.work, 1)).id
    async with cabrank.Dispatcher(gate.app, store=durable) as dispatcher:
        assert await (await dispatcher.submit(gate.elsewhere)).result() == "done"
        assert await dispatcher.handle(id).state() is State.WAITING
        await dispatcher.resume("gate")
        assert await dispatcher.handle(id).result() == 1


async def test_a_pause_holds_for_every_process_on_the_store(durable: str, gate: Gate) -> None:
    gate.go.set()
    async with cabrank.Dispatcher(gate.app, store=durable) as one, cabrank.Dispatcher(gate.app, store=durable) as other:
        await one.pause("gate")
        handle = await other.submit(gate.work, 1)
        assert await (await other.submit(gate.elsewhere)).result() == "done"
        assert await handle.state() is State.WAITING
        await other.resume("gate")
        assert await handle.result() == 1


async def test_what_waits_in_memory_of_a_paused_queue_is_not_run_at_a_stop(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    async with cabrank.Dispatcher(gate.app) as dispatcher:
        await dispatcher.pause("gate")
        await dispatcher.submit(gate.work, 1)
    assert gate.started.empty()
    assert "1 jobs that waited in memory were not run" in caplog.text


async def test_a_drained_queue_takes_nothing_on_and_runs_out(store: str, gate: Gate) -> None:
    async with cabrank.Dispatcher(gate.app, store=store, max_workers=2) as dispatcher:
        handles = [await dispatcher.submit(gate.work, number) for number in range(5)]
        drained = asyncio.ensure_future(dispatcher.drain("gate"))
        await asyncio.sleep(0)
        for submit in (dispatcher.submit(gate.work, 9), dispatcher.try_submit(gate.work, 9), dispatcher.submit_many(gate.work, [9])):
            with pytest.raises(cabrank.IntakeClosed, match="'gate' is drained: it takes no new work until it is resumed"):
                await submit
        assert await (await dispatcher.submit(gate.elsewhere)).result() == "done"
        assert not drained.done()
        gate.go.set()
        await drained
        assert [await handle.state() for handle in handles] == [State.DONE] * 5
        await dispatcher.resume("gate")
        assert await (await dispatcher.submit(gate.work, 9)).result() == 9


async def test_all_queues_are_drained_at_once(store: str, gate: Gate) -> None:
    gate.go.set()
    async with cabrank.Dispatcher(gate.app, store=store, max_workers=2) as dispatcher:
        handles = await dispatcher.submit_many(gate.work, range(500))
        await dispatcher.drain()
        assert await handles[499].state() is State.DONE
        with pytest.raises(cabrank.IntakeClosed):
            await dispatcher.submit(gate.elsewhere)


async def test_a_drain_that_takes_too_long_can_be_called_again(gate: Gate) -> None:
    async with cabrank.Dispatcher(gate.app) as dispatcher:
        handle = await dispatcher.submit(gate.work, 1)
        with pytest.raises(TimeoutError):
            await dispatcher.drain("gate", timeout_s=0.01)
        gate.go.set()
        await dispatcher.drain("gate")
        assert handle.settled


async def test_a_paused_queue_with_jobs_is_not_drained_but_refused(gate: Gate) -> None:
    async with cabrank.Dispatcher(gate.app) as dispatcher:
        await dispatcher.pause("gate")
        await dispatcher.drain("gate")  # nothing waits
        await dispatcher.resume("gate")
        await dispatcher.pause("gate")
        await dispatcher.submit(gate.work, 1)
        with pytest.raises(cabrank.UsageError, match="'gate' is paused and 1 of its jobs wait: resume it"):
            await dispatcher.drain("gate")


async def test_a_job_does_not_wait_for_the_end_of_its_own_queue(store: str) -> None:
    app = cabrank.App()

    @app.job(retry=cabrank.Retry(attempts=1))
    async def work(verb: str) -> None:
        await {"join": dispatcher.join, "drain": dispatcher.drain}[verb]()

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        for verb in ("join", "drain"):
            handle = await dispatcher.submit(work, verb)
            with pytest.raises(cabrank.JobFailed, match="it would wait for itself"):
                await handle.result()


async def test_a_queue_that_is_not_there_is_named(gate: Gate) -> None:
    async with cabrank.Dispatcher(gate.app) as dispatcher:
        for verb in (dispatcher.pause, dispatcher.resume, dispatcher.drain):
            with pytest.raises(cabrank.UsageError, match="no queue 'gaet' here"):
                await verb("gaet")
