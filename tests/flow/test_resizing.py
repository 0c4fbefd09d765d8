"""A pool is made larger and smaller while it works: a worker that was told to leave never takes another job."""

from __future__ import annotations

import asyncio
import threading

import pytest

import cabrank
from cabrank.sizing import LOOK_S
from cabrank.testing import FakeClock


class Gate:
    """Jobs that say when they start and wait to be let through, one by one."""

    def __init__(self) -> None:
        self.app = cabrank.App()
        self.running = self.most = 0
        self.started: asyncio.Queue[int] = asyncio.Queue()
        self.doors: dict[int, asyncio.Event] = {}

        @self.app.job(queue="gate")
        async def work(number: int) -> int:
            self.running += 1
            self.most = max(self.most, self.running)
            self.started.put_nowait(number)
            try:
                await self.door(number).wait()
            finally:
                self.running -= 1
            return number

        self.work = work

    def door(self, number: int) -> asyncio.Event:
        return self.doors.setdefault(number, asyncio.Event())

    def open_all(self, jobs: int) -> None:
        for number in range(jobs):
            self.door(number).set()

    async def begun(self, count: int) -> list[int]:
        return [await self.started.get() for _ in range(count)]


@pytest.fixture
async def gate() -> Gate:
    return Gate()


async def test_more_workers_start_at_once(store: str, gate: Gate) -> None:
    async with cabrank.Dispatcher(gate.app, store=store, max_workers=1) as dispatcher:
        await dispatcher.submit_many(gate.work, range(6))
        assert await gate.begun(1) == [0]
        await dispatcher.resize("gate", 4)
        assert await gate.begun(3) == [1, 2, 3]
        assert (dispatcher.pools["gate"].size, gate.running) == (4, 4)
        gate.open_all(6)
        await dispatcher.join()
    assert gate.most == 4


async def test_fewer_workers_take_effect_between_two_jobs_and_interrupt_nothing(store: str, gate: Gate) -> None:
    async with cabrank.Dispatcher(gate.app, store=store, max_workers=4) as dispatcher:
        handles = await dispatcher.submit_many(gate.work, range(8))
        await gate.begun(4)
        await dispatcher.resize("gate", 1)
        assert (dispatcher.pools["gate"].size, gate.running) == (1, 4)
        for number in range(3):  # the three that end first leave
            gate.door(number).set()
            assert await handles[number].result() == number
        assert gate.started.empty(), "a worker that was told to leave took another job"
        gate.door(3).set()
        assert await gate.begun(1) == [4], "the one that stays goes on"
        gate.most = 0
        gate.open_all(8)
        await dispatcher.join()
        assert gate.most == 1
        assert [await handle.result() for handle in handles] == list(range(8))


async def test_idle_workers_leave_at_once(gate: Gate) -> None:
    async with cabrank.Dispatcher(gate.app, max_workers=20) as dispatcher:
        await asyncio.sleep(0)
        before = len(asyncio.all_tasks())
        await dispatcher.resize("gate", 2)
        for _ in range(3):
            await asyncio.sleep(0)
        assert before - len(asyncio.all_tasks()) == 18
        gate.open_all(10)
        await dispatcher.submit_many(gate.work, range(10))
        await dispatcher.join()
    assert gate.most <= 2


async def test_a_worker_that_was_told_to_leave_stays_if_it_is_wanted_again(gate: Gate) -> None:
    async with cabrank.Dispatcher(gate.app, max_workers=3) as dispatcher:
        await dispatcher.submit_many(gate.work, range(9))
        await gate.begun(3)
        lives = set(asyncio.all_tasks())
        await dispatcher.resize("gate", 1)
        await dispatcher.resize("gate", 2)
        await dispatcher.resize("gate", 3)
        assert set(asyncio.all_tasks()) == lives
        gate.open_all(9)
        await dispatcher.join()
        assert dispatcher.pools["gate"].size == 3
    assert gate.most == 3


async def test_a_thread_ends_with_its_worker() -> None:
    app = cabrank.App()
    go = threading.Event()
    all_in = threading.Semaphore(0)

    @app.job
    def work(number: int) -> int:
        all_in.release()
        go.wait()
        return number

    def threads() -> int:
        return sum(thread.name == "cabrank-thread" for thread in threading.enumerate())

    async with cabrank.Dispatcher(app, max_workers=4) as dispatcher:
        handles = await dispatcher.submit_many(work, range(4))
        for _ in range(4):
            await asyncio.to_thread(all_in.acquire)
        assert threads() == 4
        await dispatcher.resize("thread", 1)
        go.set()
        assert [await handle.result() for handle in handles] == [0, 1, 2, 3]
        await dispatcher.join()
        assert threads() == 1


async def test_what_cannot_be_is_refused(gate: Gate) -> None:
    dispatcher = cabrank.Dispatcher(gate.app)
    with pytest.raises(cabrank.NotEntered):
        await dispatcher.resize("gate", 2)
    async with dispatcher:
        with pytest.raises(cabrank.UsageError, match="no queue 'gaet' here; there are async, gate, process, thread"):
            await dispatcher.resize("gaet", 2)
        with pytest.raises(cabrank.SettingError, match="at least 1, not 0: pause a queue"):
            await dispatcher.resize("gate", 0)
        with pytest.raises(cabrank.SettingError, match="the least and the most, as in 4-64, not 5-4"):
            await dispatcher.resize("gate", (5, 4))


async def test_a_pool_with_a_least_and_a_most_grows_with_what_waits_and_shrinks_again(store: str, gate: Gate, clock: FakeClock) -> None:
    workers = {"gate": (2, 40)}
    async with cabrank.Dispatcher(gate.app, store=store, max_workers=workers, clock=clock) as dispatcher:
        pool = dispatcher.pools["gate"]
        assert pool.size == 2
        handles = await dispatcher.submit_many(gate.work, range(30))
        await gate.begun(2)
        while pool.size < 30:  # no run has ended, so nothing is known but that they wait
            await clock.advance(LOOK_S)
        await gate.begun(28)
        gate.open_all(30)
        assert [await handle.result() for handle in handles] == list(range(30))
        for _ in range(120):
            await clock.advance(LOOK_S)
            await asyncio.sleep(0)
        while pool.size > 2:
            await clock.advance(LOOK_S)
        await dispatcher.resize("gate", (3, 5))
        assert pool.size == 3
        await dispatcher.resize("gate", 7)
        assert pool.size == 7
