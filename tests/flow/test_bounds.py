"""A full queue pushes back on whoever submits, and what runs at once is bounded."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

import cabrank


class Gate:
    """An app whose jobs wait at a gate."""

    def __init__(self) -> None:
        self.app = cabrank.App()
        self.open = asyncio.Event()
        self.arrived: asyncio.Queue[int] = asyncio.Queue()
        self.ran: list[int] = []
        self.most = self.now = 0

        @self.app.job
        async def work(number: int) -> int:
            self.now += 1
            self.most = max(self.most, self.now)
            self.arrived.put_nowait(number)
            await self.open.wait()
            self.now -= 1
            self.ran.append(number)
            return number

        self.work = work


@pytest.fixture
async def gate() -> Gate:
    return Gate()


async def test_no_more_run_at_once_than_there_are_workers(store: str, gate: Gate) -> None:
    async with cabrank.Dispatcher(gate.app, store=store, max_workers=3) as dispatcher:
        await dispatcher.submit_many(gate.work, range(50))
        for _ in range(3):
            await gate.arrived.get()
        gate.open.set()
        await dispatcher.join()
    assert gate.most == 3
    assert sorted(gate.ran) == list(range(50))


async def test_a_full_queue_refuses_who_does_not_wait(store: str, gate: Gate) -> None:
    async with cabrank.Dispatcher(gate.app, store=store, max_workers=1, max_queue=2) as dispatcher:
        running = await dispatcher.submit(gate.work, 0)
        await gate.arrived.get()
        for number in (1, 2):
            await dispatcher.try_submit(gate.work, number)
        with pytest.raises(cabrank.QueueFull, match="2 of 2 jobs") as caught:
            await dispatcher.try_submit(gate.work, 3)
        assert caught.value.queue == "async"
        gate.open.set()
        await running.result()
        await dispatcher.join()
        await dispatcher.try_submit(gate.work, 4)
        await dispatcher.join()
    assert gate.ran == [0, 1, 2, 4]


async def test_who_waits_for_room_is_served_first_come_first_served(store: str, gate: Gate) -> None:
    async with cabrank.Dispatcher(gate.app, store=store, max_workers=1, max_queue=1) as dispatcher:
        await dispatcher.submit(gate.work, 0)
        await gate.arrived.get()
        async with asyncio.TaskGroup() as group:
            for number in range(1, 6):
                group.create_task(dispatcher.submit(gate.work, number))
                await asyncio.sleep(0)
            gate.open.set()
        await dispatcher.join()
    assert gate.ran == list(range(6))


async def test_many_that_do_not_fit_are_taken_as_room_comes(store: str, gate: Gate) -> None:
    gate.open.set()
    async with cabrank.Dispatcher(gate.app, store=store, max_workers=2, max_queue=8) as dispatcher:
        await dispatcher.submit_many(gate.work, range(200))
        await dispatcher.join()
    assert sorted(gate.ran) == list(range(200))


async def test_a_wait_for_room_that_is_cancelled_stores_nothing_more(store: str, gate: Gate) -> None:
    async with cabrank.Dispatcher(gate.app, store=store, max_workers=1, max_queue=1) as dispatcher:
        await dispatcher.submit(gate.work, 0)
        await gate.arrived.get()
        await dispatcher.submit(gate.work, 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await dispatcher.submit(gate.work, 2)
        gate.open.set()
        await dispatcher.join()
        await (await dispatcher.submit(gate.work, 3)).result()
    assert [number for number in gate.ran if number != 2] == [0, 1, 3], "what was cancelled while it waited is stored or it is not"


async def test_a_job_does_not_wait_for_room_that_only_its_own_pool_can_make(store: str) -> None:
    app = cabrank.App()
    dispatchers: list[cabrank.Dispatcher] = []

    @app.job
    async def child() -> None: ...

    @app.job
    async def parent() -> str:
        await dispatchers[0].submit(child)
        try:
            await dispatchers[0].submit(child)
        except cabrank.QueueFull as full:
            return str(full)
        return "it waited"

    async with cabrank.Dispatcher(app, store=store, max_workers=1, max_queue=1) as dispatcher:
        dispatchers.append(dispatcher)
        assert "only its own pool can make" in await (await dispatcher.submit(parent)).result()


async def test_a_job_may_wait_for_room_in_another_queue(store: str) -> None:
    app = cabrank.App()
    dispatchers: list[cabrank.Dispatcher] = []
    ran: list[int] = []

    @app.job(queue="children")
    async def child(number: int) -> None:
        ran.append(number)

    @app.job(queue="parents")
    async def parent() -> None:
        for number in range(20):
            await dispatchers[0].submit(child, number)

    async with cabrank.Dispatcher(app, store=store, max_workers=1, max_queue=1) as dispatcher:
        dispatchers.append(dispatcher)
        await (await dispatcher.submit(parent)).result()
        await dispatcher.join()
    assert ran == list(range(20))


async def test_memory_stays_flat_when_a_burst_meets_a_full_queue(store: str, gate: Gate) -> None:
    async def burst(dispatcher: cabrank.Dispatcher, tries: int) -> int:
        refused = 0
        for _ in range(tries):
            try:
                await dispatcher.try_submit(gate.work, 1)
            except cabrank.QueueFull:
                refused += 1
        return refused

    async with cabrank.Dispatcher(gate.app, store=store, max_workers=1, max_queue=50) as dispatcher:
        await burst(dispatcher, 300)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            assert await burst(dispatcher, 1_000) == 1_000
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        gate.open.set()
    assert after - before < 50_000, "less than 50 bytes for each refused job"


async def test_bounds_and_workers_can_be_set_by_queue(store: str) -> None:
    app = cabrank.App()

    @app.job(queue="narrow")
    async def narrow() -> None: ...

    @app.job(queue="wide")
    async def wide() -> None: ...

    dispatcher = cabrank.Dispatcher(app, store=store, max_workers={"narrow": 2}, max_queue={"narrow": 5})
    async with dispatcher:
        assert (dispatcher.pools["narrow"].size, dispatcher.pools["wide"].size) == (2, 100)
