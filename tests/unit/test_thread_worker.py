"""What a thread worker promises: one outcome for each run, and an honest word where a thread cannot be stopped."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from cabrank.events import Counters
from cabrank.job import BARE, Job, Lease
from cabrank.policy import RETURNED_NONE, Cancelled, Raised, Returned, TimedOut
from cabrank.workers import thread
from cabrank.workers.contract import Calls
from cabrank.workers.thread import LeftBehind, ThreadWorker

MARK: contextvars.ContextVar[int] = contextvars.ContextVar("mark", default=0)


def lease_of(function: Callable[..., Any], *args: object) -> Lease:
    return Lease(Job(id=1, handler=BARE, queue="thread", payload=b"", args=args, function=function), 1)


class Gate:
    """Holds a function in its thread until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def wait(self) -> str:
        self.entered.set()
        self.opened.wait()
        return "late"


async def begin(worker: ThreadWorker, gate: Gate) -> asyncio.Future[Any]:
    """Let the worker run until it is held in its thread."""
    running = asyncio.ensure_future(worker.run(lease_of(gate.wait)))
    await asyncio.to_thread(gate.entered.wait)
    return running


async def all_ended(left_behind: LeftBehind) -> None:
    while left_behind.count:
        await asyncio.sleep(0)


@pytest.fixture
def left_behind() -> LeftBehind:
    return LeftBehind(Counters())


@pytest.fixture
async def worker(left_behind: LeftBehind) -> AsyncIterator[ThreadWorker]:
    worker = ThreadWorker(Calls({}), contextvars.copy_context(), left_behind)
    yield worker
    worker.close()


async def test_what_a_function_returns_is_the_outcome(worker: ThreadWorker) -> None:
    assert await worker.run(lease_of(lambda a, b: a + b, 1, 2)) == Returned(3)
    assert await worker.run(lease_of(lambda: None)) is RETURNED_NONE


async def test_all_runs_of_a_worker_share_one_thread_which_is_not_the_loops(worker: ThreadWorker) -> None:
    first, second = [await worker.run(lease_of(threading.get_ident)) for _ in range(2)]
    assert first == second != Returned(threading.get_ident())


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), StopIteration(1)])
async def test_whatever_is_raised_ends_only_its_run(worker: ThreadWorker, error: BaseException) -> None:
    def fails() -> None:
        raise error

    assert await worker.run(lease_of(fails)) == Raised(error)
    assert await worker.run(lease_of(lambda: None)) is RETURNED_NONE


async def test_each_run_sees_a_fresh_copy_of_the_context(worker: ThreadWorker) -> None:
    def count() -> int:
        MARK.set(MARK.get() + 1)
        return MARK.get()

    assert [await worker.run(lease_of(count)) for _ in range(2)] == [Returned(1), Returned(1)]


@pytest.mark.parametrize("asked", [TimedOut(0.1), Cancelled()])
async def test_a_run_that_is_asked_to_stop_is_left_behind_and_its_result_dropped(
    worker: ThreadWorker, left_behind: LeftBehind, asked: TimedOut | Cancelled
) -> None:
    gate = Gate()
    running = await begin(worker, gate)
    assert worker.interrupt(asked)
    assert not worker.interrupt(asked), "it was asked before"
    assert await running == asked
    assert left_behind.count == 1
    assert await worker.run(lease_of(lambda: 1)) == Returned(1), "the worker goes on with another thread"
    gate.opened.set()
    await all_ended(left_behind)


async def test_beyond_the_bound_a_worker_waits_until_a_thread_that_was_left_behind_ends(
    worker: ThreadWorker, left_behind: LeftBehind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread, "MOST_LEFT_BEHIND", 1)
    gate = Gate()
    running = await begin(worker, gate)
    worker.interrupt(Cancelled())
    await running
    settling = asyncio.ensure_future(worker.settle_down())
    await asyncio.sleep(0)
    assert not settling.done()
    gate.opened.set()
    await settling
    assert left_behind.count == 0


async def test_a_worker_that_is_closed_while_it_runs_leaves_its_thread_behind(worker: ThreadWorker, left_behind: LeftBehind) -> None:
    gate = Gate()
    running = await begin(worker, gate)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert left_behind.count == 1
    gate.opened.set()
    await all_ended(left_behind)


async def test_there_is_no_thread_before_the_first_run_and_none_after_the_close(worker: ThreadWorker) -> None:
    def names() -> list[str]:
        return [one.name for one in threading.enumerate() if one.name == "cabrank-thread"]

    assert not names()
    await worker.run(lease_of(lambda: None))
    assert names()
    worker.close()
    assert not names()


async def test_a_worker_that_waits_for_a_thread_to_end_lets_itself_be_retired(
    worker: ThreadWorker, left_behind: LeftBehind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread, "MOST_LEFT_BEHIND", 1)
    gate = Gate()
    running = await begin(worker, gate)
    worker.interrupt(Cancelled())
    await running
    settling = asyncio.ensure_future(worker.settle_down())
    await asyncio.sleep(0)
    worker.retire()
    assert await settling
    gate.opened.set()
    await all_ended(left_behind)
