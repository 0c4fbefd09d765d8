"""A job that waits for what only its own pool could do is told so, whatever kind of worker runs it. It never hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cabrank
from cabrank import blocking

RUNS_ONCE = cabrank.Retry(attempts=1)


class Family:
    """An app whose parents submit children into one queue, on either kind of worker."""

    def __init__(self, store: str, kind: str) -> None:
        self.app = cabrank.App()
        self.together = asyncio.Event()
        self.parents = 0
        self.dispatchers: list[cabrank.Dispatcher] = []
        self.loop = asyncio.get_running_loop()
        self.child, self.parent = self.make(kind)
        self.store = store

    def dispatcher(self, **given: Any) -> cabrank.Dispatcher:
        dispatcher = cabrank.Dispatcher(self.app, store=self.store, **given)
        self.dispatchers.append(dispatcher)
        return dispatcher

    async def ask(self, number: int, how: str) -> object:
        """What a parent does."""
        dispatcher = self.dispatchers[0]
        if how == "submits":
            for _ in range(3):
                await dispatcher.submit(self.child, number)
            return "it waited"
        if how == "maps":
            return [result async for result in dispatcher.map(self.child, [number])]
        self.parents -= 1
        if not self.parents:
            self.together.set()
        await self.together.wait()  # else a worker that is still idle runs a child
        return await (await dispatcher.submit(self.child, number)).result()

    def make(self, kind: str) -> tuple[Callable[[int], Any], Callable[[int, str], Any]]:
        if kind == "async":

            @self.app.job(queue="family", name="child")
            async def child(number: int) -> int:
                return 10 * number

            @self.app.job(queue="family", name="parent", retry=RUNS_ONCE)
            async def parent(number: int, how: str) -> object:
                return await self.ask(number, how)

            return child, parent

        @self.app.job(queue="family", name="child")
        def child_(number: int) -> int:
            return 10 * number

        @self.app.job(queue="family", name="parent", retry=RUNS_ONCE)
        def parent_(number: int, how: str) -> object:
            return asyncio.run_coroutine_threadsafe(self.ask(number, how), self.loop).result()

        return child_, parent_


@pytest.fixture(params=["async", "thread"])
async def family(store: str, request: pytest.FixtureRequest) -> Family:
    return Family(store, request.param)


@pytest.mark.parametrize("workers", [1, 3])
async def test_parents_that_fill_their_pool_and_wait_for_children_are_told(family: Family, workers: int) -> None:
    async with family.dispatcher(max_workers=workers) as dispatcher:
        family.parents = workers
        parents = [await dispatcher.submit(family.parent, number, "waits") for number in range(workers)]
        for parent in parents:
            with pytest.raises(cabrank.JobFailed, match=r"WaitsForItself.*queue 'family'.*a queue of their own"):
                await parent.result(timeout_s=30)
        await dispatcher.join()
        assert dispatcher.engine.counters.done == workers, "the children were run when there was a worker"


async def test_parents_wait_as_long_as_one_worker_is_left_for_children(family: Family) -> None:
    async with family.dispatcher(max_workers=3) as dispatcher:
        family.parents = 2
        parents = [await dispatcher.submit(family.parent, number, "waits") for number in (1, 2)]
        assert [await parent.result(timeout_s=30) for parent in parents] == [10, 20]


async def test_a_map_inside_its_own_pool_is_told_too(family: Family) -> None:
    async with family.dispatcher(max_workers=1) as dispatcher:
        parent = await dispatcher.submit(family.parent, 1, "maps")
        with pytest.raises(cabrank.JobFailed, match="WaitsForItself"):
            await parent.result(timeout_s=30)


async def test_a_submit_into_its_own_full_queue_is_told(family: Family) -> None:
    async with family.dispatcher(max_workers=1, max_queue=1) as dispatcher:
        parent = await dispatcher.submit(family.parent, 1, "submits")
        with pytest.raises(cabrank.JobFailed, match="only its own pool can make"):
            await parent.result(timeout_s=30)


async def test_a_pool_that_can_still_grow_does(family: Family) -> None:
    async with family.dispatcher(max_workers={"family": (1, 3)}) as dispatcher:
        family.parents = 1
        assert await (await dispatcher.submit(family.parent, 1, "waits")).result(timeout_s=30) == 10


async def test_another_process_may_run_what_is_waited_for(tmp_path: Path) -> None:
    family = Family(f"sqlite:///{tmp_path}/jobs.db", "async")
    async with family.dispatcher(max_workers=1) as dispatcher, cabrank.Dispatcher(family.app, store=family.store, max_workers=1):
        family.parents = 1
        assert await (await dispatcher.submit(family.parent, 1, "waits")).result(timeout_s=30) == 10


def test_blocking_code_is_told(tmp_path: Path) -> None:
    app = cabrank.App()
    front = blocking.Dispatcher(app, store=f"sqlite:///{tmp_path}/jobs.db", max_workers=1, max_queue=1)

    @app.job
    def child() -> None: ...

    @app.job(retry=RUNS_ONCE)
    def waits() -> None:
        front.submit(child).result()

    @app.job(retry=RUNS_ONCE)
    def submits() -> None:
        for _ in range(3):
            front.submit(child)

    front = blocking.Dispatcher(app, store=f"sqlite:///{tmp_path}/jobs.db", max_workers=1, max_queue=1)
    with front:
        with pytest.raises(cabrank.JobFailed, match="WaitsForItself"):
            front.submit(waits).result(timeout_s=30)
        with pytest.raises(cabrank.JobFailed, match="only its own pool can make"):
            front.submit(submits).result(timeout_s=30)
