"""A stop is the route in reverse: nothing more is taken on, what runs may finish, the rest is handed back, nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack
from random import Random

import pytest

import cabrank
from cabrank.clock import SystemClock
from cabrank.job import Progress, Settlement
from cabrank.states import State
from cabrank.stores import open_url
from cabrank.stores.contract import NOTHING_RETURNED, Returned, Submission, Turn, Want
from cabrank.stores.memory import MemoryStore
from cabrank.testing import FaultyStore


class Bench:
    """An app whose jobs wait to be let through, and say when they start."""

    def __init__(self) -> None:
        self.app = cabrank.App()
        self.go = asyncio.Event()
        self.started: asyncio.Queue[int] = asyncio.Queue()
        self.ended: list[tuple[int, str]] = []

        @self.app.job
        async def work(number: int) -> int:
            self.started.put_nowait(number)
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.ended.append((number, "cancelled"))
                raise
            self.ended.append((number, "returned"))
            return number

        self.work = work


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_what_runs_may_finish_within_the_grace(store: str, bench: Bench) -> None:
    async with cabrank.Dispatcher(bench.app, store=store) as dispatcher:
        handle = await dispatcher.submit(bench.work, 1)
        await bench.started.get()
        asyncio.get_running_loop().call_soon(bench.go.set)
    assert await handle.result() == 1
    assert bench.ended == [(1, "returned")]


async def test_what_runs_is_stopped_when_the_grace_is_over(store: str, bench: Bench) -> None:
    async with cabrank.Dispatcher(bench.app, store=store) as dispatcher:
        handle = await dispatcher.submit(bench.work, 1)
        await bench.started.get()
        await dispatcher.stop(grace_s=0)
        assert bench.ended == [(1, "cancelled")]
        with pytest.raises(cabrank.IntakeClosed, match="by its id"):
            await handle.result()


async def test_what_did_not_finish_is_run_by_the_next_without_a_failure(durable: str, bench: Bench) -> None:
    async with cabrank.Dispatcher(bench.app, store=durable, max_workers=2) as dispatcher:
        handles = await dispatcher.submit_many(bench.work, range(10))
        ids = [handle.id for handle in handles]
        await bench.started.get()
        await dispatcher.stop(grace_s=0)
    bench.go.set()
    bench.ended.clear()
    async with cabrank.Dispatcher(bench.app, store=durable) as dispatcher:
        records = await dispatcher.engine.store.find([dispatcher.handle(id).number for id in ids])
        assert {(record.failures, record.crashes) for record in records.values()} == {(0, 0)}
        await dispatcher.join()
    assert sorted(bench.ended) == [(number, "returned") for number in range(10)]


async def test_what_waits_in_memory_is_run_within_the_grace(bench: Bench) -> None:
    bench.go.set()
    async with cabrank.Dispatcher(bench.app, max_workers=2) as dispatcher:
        await dispatcher.submit_many(bench.work, range(500))
    assert sorted(bench.ended) == [(number, "returned") for number in range(500)]


async def test_nothing_is_taken_on_after_a_stop(store: str, bench: Bench) -> None:
    async with cabrank.Dispatcher(bench.app, store=store) as dispatcher:
        await dispatcher.stop()
        for submit in (dispatcher.submit(bench.work, 1), dispatcher.try_submit(bench.work, 1), dispatcher.submit_many(bench.work, [1])):
            with pytest.raises(cabrank.IntakeClosed):
                await submit
    assert bench.started.empty()


async def test_it_is_refused_before_it_is_entered(store: str, bench: Bench) -> None:
    with pytest.raises(cabrank.NotEntered, match="async with"):
        await cabrank.Dispatcher(bench.app, store=store).submit(bench.work, 1)


async def test_stopping_what_was_never_entered_does_nothing(store: str, bench: Bench) -> None:
    await cabrank.Dispatcher(bench.app, store=store).stop()
    dispatcher = cabrank.Dispatcher(bench.app, store=store)
    await dispatcher.stop(grace_s=0)
    async with dispatcher:
        bench.go.set()
        assert await (await dispatcher.submit(bench.work, 1)).result() == 1


async def test_it_is_entered_once(store: str, bench: Bench) -> None:
    dispatcher = cabrank.Dispatcher(bench.app, store=store)
    async with dispatcher:
        with pytest.raises(cabrank.UsageError, match="make a new one"):
            await dispatcher.__aenter__()
        bench.go.set()
        assert await (await dispatcher.submit(bench.work, 1)).result() == 1, "the first goes on"
    with pytest.raises(cabrank.UsageError, match="make a new one"):
        await dispatcher.__aenter__()
    assert open_dispatchers() == []


async def test_who_waits_for_room_is_told_at_a_stop(store: str, bench: Bench) -> None:
    async with cabrank.Dispatcher(bench.app, store=store, max_workers=1, max_queue=1) as dispatcher:
        await dispatcher.submit(bench.work, 0)
        await bench.started.get()
        await dispatcher.submit(bench.work, 1)
        waiting = asyncio.gather(*(dispatcher.submit(bench.work, number) for number in range(2, 6)), return_exceptions=True)
        await asyncio.sleep(0)
        await dispatcher.stop(grace_s=0)
        assert {type(answer) for answer in await waiting} == {cabrank.IntakeClosed}


async def test_a_second_stop_waits_for_the_first(store: str, bench: Bench) -> None:
    async with cabrank.Dispatcher(bench.app, store=store) as dispatcher:
        await dispatcher.submit(bench.work, 1)
        await bench.started.get()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(dispatcher.stop(grace_s=60))
            second = group.create_task(dispatcher.stop(grace_s=60))
            await asyncio.sleep(0)
            assert not first.done()
            assert not second.done()
            bench.go.set()
    assert bench.ended == [(1, "returned")]


async def test_a_second_stop_without_grace_ends_the_first_ones(store: str, bench: Bench) -> None:
    async with cabrank.Dispatcher(bench.app, store=store) as dispatcher:
        await dispatcher.submit(bench.work, 1)
        await bench.started.get()
        async with asyncio.TaskGroup() as group:
            group.create_task(dispatcher.stop(grace_s=60))
            await asyncio.sleep(0)
            group.create_task(dispatcher.stop(grace_s=0))
    assert bench.ended == [(1, "cancelled")]


async def test_an_exception_leaves_the_block_as_it_is(store: str, bench: Bench) -> None:
    class Own(Exception): ...

    with pytest.raises(Own):  # noqa: PT012 -- what leaves the block is the subject
        async with cabrank.Dispatcher(bench.app, store=store) as dispatcher:
            await dispatcher.submit(bench.work, 1)
            await bench.started.get()
            raise Own
    assert bench.ended == [(1, "cancelled")], "an exception leaves at once"


async def test_it_may_be_left_in_another_asyncio_task_than_it_was_entered_in(store: str, bench: Bench) -> None:
    bench.go.set()
    stack = AsyncExitStack()

    async def enter() -> cabrank.Dispatcher:
        return await stack.enter_async_context(cabrank.Dispatcher(bench.app, store=store))

    async with asyncio.TaskGroup() as group:
        entered = group.create_task(enter())
    handle = await entered.result().submit(bench.work, 1)
    assert await handle.result() == 1
    async with asyncio.TaskGroup() as group:
        group.create_task(stack.aclose())
    assert open_dispatchers() == []


async def test_a_cancel_while_leaving_hands_back_at_once_and_closes_the_store(durable: str, bench: Bench) -> None:
    dispatcher = cabrank.Dispatcher(bench.app, store=durable)

    async def live() -> None:
        async with dispatcher:
            await dispatcher.submit(bench.work, 1)
            await bench.started.get()

    async with asyncio.TaskGroup() as group:
        life = group.create_task(live())
        while dispatcher.engine.closed is None or not bench.started.empty() or isinstance(dispatcher.engine.closed, cabrank.NotEntered):
            await asyncio.sleep(0)
        life.cancel()
    assert life.cancelled()
    assert bench.ended == [(1, "cancelled")]
    assert not writers()
    async with cabrank.Dispatcher(bench.app, store=durable) as following:
        bench.go.set()
        await following.join()
    assert bench.ended[1:] == [(1, "returned")]


async def test_a_cancel_while_entering_leaves_nothing(store: str) -> None:
    app = cabrank.App()
    opening = asyncio.Event()
    closed: list[str] = []

    class Slow:
        async def __aenter__(self) -> int:
            return 1

        async def __aexit__(self, *_: object) -> None:
            closed.append("first")

    async def never() -> int:
        opening.set()
        await asyncio.get_running_loop().create_future()
        return 1

    @app.job
    async def work(*, first: int = cabrank.resource(Slow), second: int = cabrank.resource(never)) -> None: ...

    async def live() -> None:
        async with cabrank.Dispatcher(app, store=store):
            pytest.fail("it was entered")

    async with asyncio.TaskGroup() as group:
        life = group.create_task(live())
        await opening.wait()
        life.cancel()
    assert closed == ["first"]
    assert open_dispatchers() == []
    assert not writers()


async def test_nothing_is_left_after_the_end(store: str, bench: Bench) -> None:
    before = asyncio.all_tasks()
    async with cabrank.Dispatcher(bench.app, store=store) as dispatcher:
        bench.go.set()
        await dispatcher.submit_many(bench.work, range(100))
        await dispatcher.join()
        assert open_dispatchers()
    assert asyncio.all_tasks() == before
    assert not writers()


async def test_a_handler_that_does_not_stop_is_left_behind_and_its_job_handed_back(
    durable: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cabrank.dispatcher.STUBBORN_S", 0.01)
    app = cabrank.App()
    started, go = asyncio.Event(), asyncio.Event()

    @app.job
    async def stubborn() -> None:
        started.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                pass

    async with cabrank.Dispatcher(app, store=durable, max_workers=1) as dispatcher:
        id = (await dispatcher.submit(stubborn)).id
        await started.wait()
        monkeypatch.setattr("cabrank.engine.STUBBORN_S", 0.01)
        await dispatcher.stop(grace_s=0)
    go.set()
    assert "it is left behind" in caplog.text
    async with cabrank.Dispatcher(cabrank.App(), store=durable) as following:
        assert await following.handle(id).state() is State.WAITING


class BrokenStore(MemoryStore):
    """A store with a bug, once `broken` is set."""

    broken = False

    async def turn(
        self,
        number: int,
        *,
        new: Sequence[Submission],
        settlements: Sequence[Settlement],
        want: Mapping[str, Want],
        returned: Returned = NOTHING_RETURNED,
        progress: Sequence[Progress] = (),
    ) -> Turn:
        if self.broken:
            raise LookupError("a bug")
        return await super().turn(number, new=new, settlements=settlements, want=want, returned=returned, progress=progress)


async def test_a_failure_inside_is_told_to_everybody(bench: Bench) -> None:
    store = BrokenStore(SystemClock())
    with pytest.raises(cabrank.DispatcherFailed, match="a bug") as caught:  # noqa: PT012 -- as above
        async with cabrank.Dispatcher(bench.app, store=store, max_workers=2) as dispatcher:
            handles = await dispatcher.submit_many(bench.work, range(2))
            await bench.started.get()
            await bench.started.get()
            store.broken = True
            async with asyncio.TaskGroup() as group:
                waiting = [group.create_task(failed(handles[0].result())), group.create_task(failed(dispatcher.join()))]
                await asyncio.sleep(0)
                bench.go.set()
            assert all(waiter.result() for waiter in waiting)
            assert await failed(dispatcher.submit(bench.work, 2))
            assert await failed(handles[1].result())
            assert await failed(dispatcher.join())
    assert isinstance(caught.value.__cause__, LookupError)
    assert open_dispatchers() == []


async def failed(call: Awaitable[object]) -> bool:
    try:
        await call
    except cabrank.DispatcherFailed:
        return True
    return False


async def test_the_blocks_own_exception_goes_before_a_failure_inside(bench: Bench) -> None:
    class Own(Exception): ...

    store = BrokenStore(SystemClock())
    with pytest.raises(Own):  # noqa: PT012 -- what leaves the block is the subject
        async with cabrank.Dispatcher(bench.app, store=store) as dispatcher:
            store.broken = True
            assert await failed((await dispatcher.submit(bench.work, 1)).result())
            raise Own


async def test_a_store_that_is_away_delays_and_loses_nothing(bench: Bench) -> None:
    clock, rng = SystemClock(), Random(1)
    away = FaultyStore(open_url("memory://", clock), clock=clock, rng=rng)
    bench.go.set()
    async with cabrank.Dispatcher(bench.app, store=away) as dispatcher:
        away.requests_to_lose, away.replies_to_lose = 1, 1
        handles = [await dispatcher.submit(bench.work, number) for number in range(20)]
        assert [await handle.result() for handle in handles] == list(range(20))
        assert dispatcher.engine.counters.turns_failed == 2
    assert len(bench.ended) == 20, "each ran once"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # as any server that forks workers is
async def test_a_forked_child_is_refused(store: str, bench: Bench) -> None:
    bench.go.set()
    async with cabrank.Dispatcher(bench.app, store=store) as dispatcher:
        await (await dispatcher.submit(bench.work, 1)).result()
        child = os.fork()
        if not child:
            os._exit(0 if refuses(dispatcher, bench) else 1)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert await (await dispatcher.submit(bench.work, 2)).result() == 2, "the parent goes on"


def refuses(dispatcher: cabrank.Dispatcher, bench: Bench) -> bool:
    """Whether a submit raises, stepped by hand: the event loop is the parent's."""
    try:
        dispatcher.submit(bench.work, 3).send(None)
    except cabrank.UsedAfterFork:
        return True
    return False


def open_dispatchers() -> list[str]:
    return [name for one in asyncio.all_tasks() if (name := one.get_name()).startswith("Dispatcher")]


def writers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("cabrank")]
