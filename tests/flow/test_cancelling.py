"""A cancel of a running job is seen until the run has ended, reaches that run or nothing, and is refused once the handler returned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from random import Random

import msgspec
import pytest

import cabrank
from cabrank.clock import SystemClock
from cabrank.dispatcher import STUBBORN_SWEEP_S
from cabrank.events import Event, RunsCancelling
from cabrank.root import STUBBORN_S
from cabrank.states import State
from cabrank.stores.memory import MemoryStore
from cabrank.stores.memory.store import CAPABILITIES
from cabrank.testing import FakeClock, FaultyStore


class Stubborn:
    """A handler that goes on until it is let go, whatever it is told."""

    def __init__(self) -> None:
        self.app = cabrank.App()
        self.started, self.told, self.go = asyncio.Event(), asyncio.Event(), asyncio.Event()

        @self.app.job
        async def goes_on() -> str:
            self.started.set()
            while not self.go.is_set():
                try:
                    await self.go.wait()
                except asyncio.CancelledError:
                    self.told.set()
            return "in its own time"

        self.goes_on = goes_on


@pytest.fixture
async def stubborn() -> AsyncGenerator[Stubborn]:
    stubborn = Stubborn()
    yield stubborn
    stubborn.go.set()  # else a test that fails leaves a loop that cannot be closed


async def test_it_is_seen_from_the_cancel_to_the_end_of_the_run(store: str, stubborn: Stubborn) -> None:
    events: list[Event] = []
    async with cabrank.Dispatcher(stubborn.app, store=store) as dispatcher:
        dispatcher.engine.events.subscribe(events.append)
        handle = await dispatcher.submit(stubborn.goes_on)
        await stubborn.started.wait()
        assert not await handle.cancelling()
        assert await handle.cancel()
        assert await handle.cancelling()
        await stubborn.told.wait()
        assert await handle.state() is State.RUNNING
        assert await dispatcher.handle(handle.id).cancelling(), "whoever has the id sees it"
        assert await handle.cancel(), "it runs still"
        stubborn.go.set()
        assert await handle.result() == "in its own time"
        assert not await handle.cancelling()
    assert [event.fences for event in events if isinstance(event, RunsCancelling)] == [[(handle.number, 1)]], "told once"


async def test_a_coroutine_that_swallows_its_cancel_is_said_and_counted_once(
    store: str, stubborn: Stubborn, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with cabrank.Dispatcher(stubborn.app, store=store, clock=clock) as dispatcher:
        handle = await dispatcher.submit(stubborn.goes_on)
        await stubborn.started.wait()
        await handle.cancel()
        while not stubborn.told.is_set():
            await clock.advance(0.05)
        counters = dispatcher.engine.counters
        assert counters.left_behind == 0
        await clock.advance(STUBBORN_S + STUBBORN_SWEEP_S)
        assert counters.left_behind == 1
        await clock.advance(3 * STUBBORN_S)
        assert counters.left_behind == 1
        assert "goes_on does not stop though it was told to: it keeps its worker" in caplog.text
        stubborn.go.set()
        while not handle.settled:
            await clock.advance(0.05)


async def test_one_that_stops_when_it_is_told_is_not_counted(store: str, clock: FakeClock) -> None:
    started = asyncio.Event()
    app = cabrank.App()

    @app.job
    async def waits() -> None:
        started.set()
        await asyncio.Event().wait()

    async with cabrank.Dispatcher(app, store=store, clock=clock) as dispatcher:
        handle = await dispatcher.submit(waits)
        await started.wait()
        await handle.cancel()
        while not handle.settled:
            await clock.advance(0.05)
        await clock.advance(3 * STUBBORN_S)
        assert dispatcher.engine.counters.left_behind == 0


async def test_a_cancel_after_the_handler_has_returned_answers_no(store: str) -> None:
    app, returning = cabrank.App(), asyncio.Event()

    @app.job
    async def work() -> int:
        await asyncio.sleep(0)
        returning.set()
        return 42

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(work)
        await returning.wait()
        assert not await handle.cancel()
        assert await handle.result() == 42


async def test_it_answers_no_though_the_outcome_is_still_on_its_way() -> None:
    clock = SystemClock()
    capabilities = msgspec.structs.replace(CAPABILITIES, shared=True, judges_room=False)
    store = FaultyStore(MemoryStore(clock), clock=clock, rng=Random(1), capabilities=capabilities)
    app, started, go = cabrank.App(), asyncio.Event(), asyncio.Event()

    @app.job
    async def work() -> int:
        started.set()
        await go.wait()
        return 42

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(work)
        await started.wait()
        store.freeze()
        go.set()
        async with asyncio.TaskGroup() as group:
            while dispatcher.running():
                await asyncio.sleep(0)
            cancelling = group.create_task(handle.cancel())
            await asyncio.sleep(0)
            assert not cancelling.done()
            store.thaw()
        assert not cancelling.result()
        assert await handle.result() == 42
