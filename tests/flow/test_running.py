"""What runs can be seen: which job, for how long, and where it stands, whatever it does to the event loop."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor

import pytest

import cabrank
from cabrank.settings import Kind
from cabrank.testing import FakeClock

STARES = "in Bench.stare: assert self.released.wait(30)"


class Bench:
    """Handlers that wait until they are let go, each in its own way."""

    def __init__(self) -> None:
        self.app = cabrank.App()
        self.started: asyncio.Queue[str] = asyncio.Queue()
        self.go = asyncio.Event()
        self.came, self.released = threading.Event(), threading.Event()

        @self.app.job
        async def waits(name: str) -> None:
            self.started.put_nowait(name)
            await self.deeper()

        @self.app.job
        async def stubborn() -> None:
            self.started.put_nowait("stubborn")
            while not self.go.is_set():
                try:
                    await self.go.wait()
                except asyncio.CancelledError:
                    continue

        @self.app.job
        async def blocks() -> None:
            self.came.set()
            self.stare()

        @self.app.job
        async def blocks_many(number: int) -> None:
            self.came.set()
            self.stare()

        @self.app.job
        def on_a_thread() -> None:
            self.came.set()
            self.stare()

        self.waits, self.stubborn, self.blocks, self.blocks_many, self.on_a_thread = waits, stubborn, blocks, blocks_many, on_a_thread

    async def deeper(self) -> None:
        await self.go.wait()

    def stare(self) -> None:
        assert self.released.wait(30)


@pytest.fixture
async def bench() -> AsyncGenerator[Bench]:
    bench = Bench()
    yield bench
    bench.go.set()
    bench.released.set()


async def test_nothing_runs_at_first(store: str, bench: Bench) -> None:
    async with cabrank.Dispatcher(bench.app, store=store) as dispatcher:
        assert dispatcher.running() == []
        assert dispatcher.dump() == f"process {os.getpid()}: 0 jobs run"


@pytest.mark.parametrize("submit", ["submit", "submit_many"])
async def test_a_coroutine_that_waits_shows_where(store: str, bench: Bench, submit: str) -> None:
    clock = FakeClock()
    async with cabrank.Dispatcher(bench.app, store=store, clock=clock) as dispatcher:
        if submit == "submit_many":
            [handle] = await dispatcher.submit_many(bench.waits, ["a"])
        else:
            handle = await dispatcher.submit(bench.waits, "a")
        await bench.started.get()
        clock.jump(3.0)
        [job] = dispatcher.running()
        assert (job.id, job.handler, job.queue, job.kind, job.run) == (handle.id, "waits", "async", Kind.ASYNC, 1)
        assert (job.process, job.thread, job.stopping) == (os.getpid(), threading.get_ident(), "")
        assert "in Bench.__init__.<locals>.waits: await self.deeper()" in job.stack[0]
        assert "in Bench.deeper: await self.go.wait()" in job.stack[1]
        assert "in Event.wait: await fut" in job.stack[2]
        bench.go.set()
        await handle.result()
        assert dispatcher.running() == []


async def test_a_callable_without_an_app_has_its_own_name(bench: Bench) -> None:
    async with cabrank.Dispatcher() as dispatcher:
        handle = await dispatcher.submit(bench.deeper)
        while not dispatcher.running():
            await asyncio.sleep(0)
        [job] = dispatcher.running()
        assert job.handler == "Bench.deeper"
        bench.go.set()
        await handle.result()


async def test_a_handler_sees_itself(bench: Bench) -> None:
    async with cabrank.Dispatcher() as dispatcher:

        async def looks() -> str:
            [job] = dispatcher.running()
            return job.stack[-1]

        assert (
            "in test_a_handler_sees_itself.<locals>.looks: [job] = dispatcher.running()" in await (await dispatcher.submit(looks)).result()
        )


@pytest.mark.parametrize("submit", ["submit", "submit_many"])
async def test_what_blocks_the_event_loop_is_seen_from_another_thread(store: str, bench: Bench, submit: str) -> None:
    async with cabrank.Dispatcher(bench.app, store=store) as dispatcher:

        def look() -> str:
            assert bench.came.wait(30)
            while STARES not in (said := dispatcher.dump()):  # it came, and stares a moment later
                time.sleep(0.001)
            bench.released.set()
            return said

        with ThreadPoolExecutor(1, thread_name_prefix="test") as beside:
            looking = beside.submit(look)
            if submit == "submit_many":
                await dispatcher.submit_many(bench.blocks_many, [1, 2])
            else:
                await dispatcher.submit(bench.blocks)
            await dispatcher.join()
            said = looking.result()
    assert "1 job runs" in said
    assert "in queue async (async)" in said
    assert said.index("self.stare()") < said.index("assert self.released")


async def test_a_function_on_a_thread_shows_where(store: str, bench: Bench) -> None:
    async with cabrank.Dispatcher(bench.app, store=store) as dispatcher:
        handle = await dispatcher.submit(bench.on_a_thread)
        assert await asyncio.to_thread(bench.came.wait, 30)
        while STARES not in dispatcher.dump():  # as above
            await asyncio.sleep(0.001)
        [job] = dispatcher.running()
        assert (job.handler, job.kind, job.process) == ("on_a_thread", Kind.THREAD, os.getpid())
        assert job.thread not in {0, threading.get_ident()}
        assert "on_a_thread: self.stare()" in job.stack[0], "nothing of the worker's own stands above it"
        assert "in Bench.stare" in job.stack[1]
        bench.released.set()
        await handle.result()


@pytest.mark.parametrize("submit", ["submit", "submit_many"])
async def test_a_function_that_was_left_behind_is_listed_as_long_as_its_thread_runs(store: str, bench: Bench, submit: str) -> None:
    app = cabrank.App()

    @app.job(timeout_s=0.05, retry=cabrank.Retry(attempts=1))
    def outlasts(number: int) -> None:
        bench.stare()

    clock = FakeClock()
    async with cabrank.Dispatcher(app, store=store, clock=clock, max_workers=1) as dispatcher:
        if submit == "submit_many":
            [handle] = await dispatcher.submit_many(outlasts, [1])
        else:
            handle = await dispatcher.submit(outlasts, 1)
        while STARES not in dispatcher.dump():  # it is on its way
            await asyncio.sleep(0.001)
        while not handle.settled and await handle.state() is not cabrank.State.DEAD:
            await clock.advance(0.05)
        await clock.advance(60.0)
        [job] = dispatcher.running()
        assert (job.id, job.handler, job.queue, job.kind, job.run) == (handle.id, "outlasts", "thread", Kind.THREAD, 1)
        assert (job.left_behind, job.stopping, job.process) == (True, "timed_out", os.getpid())
        assert job.since_s >= 60
        assert "outlasts: bench.stare()" in job.stack[0], "nothing of the worker's own stands above it"
        assert "0 jobs run, 1 left behind" in dispatcher.dump()
        assert "left behind (timed_out)" in dispatcher.dump()
        bench.released.set()
        while dispatcher.running():  # until its thread has ended
            await asyncio.sleep(0.001)


async def test_what_a_stop_leaves_behind_is_listed_once(store: str, bench: Bench) -> None:
    async with cabrank.Dispatcher(bench.app, store=store) as dispatcher:
        handle = await dispatcher.submit(bench.on_a_thread)
        assert await asyncio.to_thread(bench.came.wait, 30)
        await dispatcher.stop(grace_s=0)
        [job] = dispatcher.running()
        assert (job.id, job.left_behind, job.stopping) == (handle.id, True, "interrupted")


async def test_a_run_that_was_told_to_stop_and_does_not_says_why(store: str, bench: Bench) -> None:
    async with cabrank.Dispatcher(bench.app, store=store) as dispatcher:
        handle = await dispatcher.submit(bench.stubborn)
        await bench.started.get()
        assert await handle.cancel()
        while not dispatcher.running()[0].stopping:
            await asyncio.sleep(0)
        assert dispatcher.running()[0].stopping == "cancelled"
        assert "told to stop (cancelled)" in dispatcher.dump()
        bench.go.set()
        await dispatcher.join()
