"""The worker of `def` handlers: a thread of its own, which starts with its first job.

A thread cannot be stopped. A run that is asked to stop is left behind: its outcome is what was asked for, whatever it still does, and
the worker goes on with a new thread. How many may be left behind at a time is bounded; beyond that their workers take no more jobs
until one of them ends.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextvars import Context
from functools import partial
from itertools import takewhile
from queue import SimpleQueue

import msgspec

from cabrank.block import Leases
from cabrank.errors import PayloadInvalid
from cabrank.events import Counters
from cabrank.job import Lease
from cabrank.policy import RETURNED_NONE, Outcome, Raised, Returned, Unreadable
from cabrank.stacks import calling, frame_of, lines_of
from cabrank.workers.contract import Calls, Desk, Place, nobody_minds

MOST_LEFT_BEHIND = 64  # threads; at 8 MiB of stack each, half a gigabyte of address space
JOIN_S = 1.0  # an idle thread ends within microseconds of being told


class _Call(msgspec.Struct):
    work: Callable[[], object]
    deliver: Callable[[Outcome], None]
    loop: asyncio.AbstractEventLoop


class LeftBehind:
    """The threads of one dispatcher that still run what nobody waits for."""

    def __init__(self, counters: Counters) -> None:
        self.count = 0
        self._counters = counters
        self._waiting: list[asyncio.Future[None]] = []

    def left(self) -> None:
        """One more."""
        self.count += 1
        self._counters.left_behind += 1

    def ended(self) -> None:
        """One has ended after all."""
        self.count -= 1
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    @property
    def full(self) -> bool:
        """Whether no more may be left behind now."""
        return self.count >= MOST_LEFT_BEHIND

    def next_end(self) -> asyncio.Future[None]:
        """Done when one has ended."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        return waiter


class ThreadWorker:
    """Runs one function at a time, each in a fresh copy of `context`."""

    def __init__(self, calls: Calls, context: Context, left_behind: LeftBehind) -> None:
        self.lease: Lease | None = None
        self.began_at = 0.0
        self.suspended = False
        self.on_suspend: Callable[[], None] = nobody_minds
        self._retired = False
        self._ended: asyncio.Future[None] | None = None
        self._calls = calls
        self._context = context
        self._left_behind = left_behind
        self._thread: _Thread | None = None
        self._run: asyncio.Future[Outcome] | None = None

    async def run(self, lease: Lease) -> Outcome:
        """Run the job, as `Worker.run` promises."""
        try:
            function, args, keywords = self._calls.prepare(lease)
        except PayloadInvalid as error:
            return Unreadable(str(error))
        if self._thread is None:
            self._thread = _Thread()
        loop = asyncio.get_running_loop()
        self._run = run = loop.create_future()
        work = partial(self._context.copy().run, function, *args, **keywords)
        self._thread.calls.put(_Call(work, partial(self._deliver, run), loop))
        self.suspended = True
        self.on_suspend()
        try:
            outcome: Outcome = await run
        except asyncio.CancelledError:  # the worker is closed while it runs
            self._leave()
            raise
        finally:
            self._run = None
        return outcome

    def run_through(self, leases: Leases, desk: Desk) -> None:
        """One at a time."""
        del leases, desk

    def interrupt(self, outcome: Outcome) -> bool:
        """Wait for the function no longer."""
        if self._run is None or self._run.done():
            return False
        self._run.set_result(outcome)
        self._leave()
        return True

    def place(self, thread: int) -> Place:
        """In its own thread."""
        del thread
        own = 0 if self._thread is None else self._thread.number
        running = calling(frame_of(own))
        frames = list(takewhile(lambda frame: frame.f_code.co_filename != __file__, running))
        return Place(os.getpid(), own, lines_of(reversed(frames)))

    async def settle_down(self) -> bool:
        """Take no more jobs while too many threads are left behind."""
        waited = False
        while self._left_behind.full and not self._retired:
            waited = True
            self._ended = self._left_behind.next_end()
            await self._ended
        return waited

    def retire(self) -> None:
        """Wait for no thread any more."""
        self._retired = True
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def close(self) -> None:
        """End the thread, if it is idle."""
        if self._thread is not None:
            self._thread.end()
            self._thread = None

    def _leave(self) -> None:
        if self._thread is not None:
            self._thread.calls.put(None)  # it ends behind what it runs
            self._thread = None
            self._left_behind.left()

    def _deliver(self, run: asyncio.Future[Outcome], outcome: Outcome) -> None:
        if run.done():
            self._left_behind.ended()
        else:
            run.set_result(outcome)


class _Thread:
    def __init__(self) -> None:
        self.calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="cabrank-thread", daemon=True)
        self._thread.start()

    @property
    def number(self) -> int:
        return self._thread.ident or 0

    def end(self) -> None:
        self.calls.put(None)
        self._thread.join(JOIN_S)

    def _serve(self) -> None:
        while (call := self.calls.get()) is not None:
            outcome = _outcome_of(call.work)
            try:
                call.loop.call_soon_threadsafe(call.deliver, outcome)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more


def _outcome_of(work: Callable[[], object]) -> Outcome:
    try:
        value = work()
    except BaseException as error:  # noqa: BLE001 -- a handler may raise anything, and only its run ends
        return Raised(error)
    return RETURNED_NONE if value is None else Returned(value)
