"""Who blocks the event loop is named. The test owns the time; the loop and its jobs are real."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

import pytest

import cabrank
from cabrank.condition import Condition
from cabrank.events import Counters
from cabrank.watch import LOOKS, RECOVERY_S, LoopWatch

UNWATCHED = cabrank.Settings(loop_block_s=0)


class Time:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A watch whose looks are taken by the test, and what came of them."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.time = Time()
        self.condition = Condition()
        self.watch = LoopWatch(
            asyncio.get_running_loop(), self.counters, self.condition, block_s=1.0, most_s=10.0, prefix="abcdefgh", monotonic=self.time
        )

    def holds(self) -> bool:
        return self.condition.holds

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.time.now += self.watch.looks_every_s
            self.watch.look()


def words(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


async def in_a_job(work: Callable[[], object]) -> str:
    """Do it in a job that has waited before; the job's id."""

    async def blocks() -> None:
        await asyncio.sleep(0)
        work()

    async with cabrank.Dispatcher(settings=UNWATCHED) as dispatcher:  # the machine may stall, which its own watch would tell
        handle = await dispatcher.submit(blocks)
        await handle.result()
        return f"abcdefgh-{handle.number}"


async def test_a_loop_that_turns_is_not_told_of(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    for _ in range(10):
        watched.look()
        await asyncio.sleep(0)
    assert watched.counters.loop_blocks == 0
    assert not caplog.records


async def test_a_job_that_blocks_it_is_named_with_where_it_stands_once(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    id = await in_a_job(lambda: watched.look(3 * LOOKS))
    assert watched.counters.loop_blocks == 1
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    said = record.getMessage()
    assert said.startswith("the event loop has been blocked for 1.00 s by job")
    assert f"job {id} of in_a_job.<locals>.blocks, run 1; it stands at {__file__}" in said
    assert "work()" in said


async def test_when_it_goes_on_it_is_said_how_long_it_was_blocked(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    await in_a_job(lambda: watched.look(3 * LOOKS))
    caplog.clear()
    await asyncio.sleep(0)
    watched.look()
    assert "the event loop goes on: it was blocked for 2.75 s by job" in words(caplog)
    caplog.clear()
    await asyncio.sleep(0)
    watched.look()
    assert not caplog.records


async def test_what_blocks_it_and_is_no_job_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    watched.look(2 * LOOKS)
    assert "by no job; it stands at" in words(caplog)
    assert "test_what_blocks_it_and_is_no_job_is_shown" in words(caplog)


async def test_code_that_keeps_the_interpreters_lock_is_named_when_it_lets_go(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()

    def keep() -> None:
        watched.look()
        watched.time.now += 30.0
        watched.watch.look()

    id = await in_a_job(keep)
    assert watched.counters.loop_blocks == 1
    assert "the event loop, and every other thread, was blocked for 30.00 s by job" in words(caplog)
    assert id in words(caplog)


async def test_a_process_that_stood_still_blames_nobody(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    watched.time.now += 30.0
    watched.watch.look()
    assert watched.counters.loop_blocks == 0
    assert "this process stood still for 30.00 s" in words(caplog)


async def test_a_loop_that_is_blocked_for_too_long_lets_its_leases_go_and_is_well_again_later(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    watched.look(2 * LOOKS)
    assert watched.holds(), "blocked, and not for too long"
    watched.look(10 * LOOKS)
    assert not watched.holds()
    assert "blocked for more than max_loop_block_s (10 s) by no job; it stands at" in watched.condition.unfit
    assert watched.counters.leases_let_go == 1, "told once"
    assert "other processes run its jobs" in words(caplog)
    await asyncio.sleep(0)  # it goes on
    watched.look()
    assert watched.holds()
    assert watched.condition.unfit, "it has not turned for long"
    for _ in range(int(RECOVERY_S) * LOOKS + 1):
        await asyncio.sleep(0)
        watched.look()
    assert not watched.condition.unfit


class Seen(logging.Handler):
    """Tells that something was logged which has these words in it."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.came = threading.Event()
        self._words = words

    def emit(self, record: logging.LogRecord) -> None:
        if self._words in record.getMessage():
            self.came.set()


async def test_a_dispatcher_names_its_own_job_while_it_blocks() -> None:
    app, seen = cabrank.App(), Seen(" of stares, run 1; it stands at ")

    @app.job
    async def stares() -> bool:
        return seen.came.wait(30)

    logger = logging.getLogger("cabrank")
    logger.addHandler(seen)
    try:
        async with cabrank.Dispatcher(app) as dispatcher:
            assert await (await dispatcher.submit(stares)).result(), "it was named while it blocked"
            assert dispatcher.engine.counters.loop_blocks >= 1
    finally:
        logger.removeHandler(seen)


async def test_it_can_be_switched_off() -> None:
    async with cabrank.Dispatcher(settings=UNWATCHED):
        assert "cabrank-watch" not in {thread.name for thread in threading.enumerate()}


def test_a_negative_time_is_refused() -> None:
    with pytest.raises(cabrank.SettingError, match="loop_block_s"):
        cabrank.Settings(loop_block_s=-1)
