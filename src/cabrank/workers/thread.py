"""The worker of `def` handlers: a thread of its own, which starts with its first job.

A thread cannot be stopped. A run that is asked to stop is left behind: its outcome is what was asked for, whatever it still does, and
the worker goes on with a new thread. How many may be left behind at a time is bounded; beyond that their workers take no more jobs
until one of them ends.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from functools import partial
from itertools import takewhile
from queue import SimpleQueue

import msgspec

from cabrank.block import Leases
from cabrank.errors import PayloadInvalid
from cabrank.events import Counters
from cabrank.job import Lease
from cabrank.policy import RETURNED_NONE, Interrupted, Outcome, Raised, Returned, Unreadable
from cabrank.stacks import calling, frame_of, lines_of
from cabrank.workers import trip as its_trip
from cabrank.workers.contract import Calls, Desk, Place, nobody_minds
from cabrank.workers.trip import Inbox, Tray, Trip

MOST_LEFT_BEHIND = 64  # threads; at 8 MiB of stack each, half a gigabyte of address space
JOIN_S = 0.01  # an idle thread ends within microseconds of being told; where others keep the interpreter, it does so later by itself
OURS = {__file__, its_trip.__file__}
"""The files whose code calls a handler in its thread."""
Run = asyncio.Future[Outcome] | Trip
"""What a thread is in: one run, or many."""


class LeftRun(msgspec.Struct, frozen=True):
    """A run that nobody waits for, in its thread. `began_at` is on the monotonic clock, `asked` is why it was left."""

    lease: Lease
    began_at: float
    asked: Outcome
    thread: _Thread

    @property
    def place(self) -> Place:
        """Where it stands. May be asked for in any thread."""
        return Place(os.getpid(), self.thread.number, _stack_of(self.thread.number), self.asked)


class LeftBehind:
    """The threads of one dispatcher that still run what nobody waits for."""

    def __init__(self, counters: Counters) -> None:
        self.inbox = Inbox()
        self._runs: dict[Run, LeftRun] = {}
        self._trays: dict[int, Tray] = {}
        self._counters = counters
        self._waiting: list[asyncio.Future[None]] = []

    def tray(self, desk: Desk) -> Tray:
        """Where the workers at this desk put down what came of their runs."""
        return self._trays.get(id(desk)) or self._trays.setdefault(id(desk), Tray(desk, self.inbox, asyncio.get_running_loop()))

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self._runs)

    @property
    def runs(self) -> Sequence[LeftRun]:
        """What they run. May be asked for in any thread, also while the loop has not heard of their end."""
        return [run for run in tuple(self._runs.values()) if run.thread.lives]

    def left(self, run: Run, its: LeftRun) -> None:
        """One more."""
        self._runs[run] = its
        self._counters.left_behind += 1

    def ended(self, run: Run) -> None:
        """One has ended after all."""
        del self._runs[run]
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
    """Runs one function at a time, each in a fresh copy of `context`. Its thread takes jobs that are alike by itself."""

    def __init__(self, calls: Calls, context: Context, left_behind: LeftBehind) -> None:
        self.suspended = False
        self.on_suspend: Callable[[], None] = nobody_minds
        self._retired = False
        self._ended: asyncio.Future[None] | None = None
        self._calls = calls
        self._context = context
        self._left_behind = left_behind
        self._thread: _Thread | None = None
        self._lease: Lease | None = None
        self._began_at = 0.0
        self._run: asyncio.Future[Outcome] | None = None
        self._trip: Trip | None = None

    @property
    def lease(self) -> Lease | None:
        """What it runs now. The same object as long as it does."""
        return self._lease if self._trip is None else self._trip.lease

    @lease.setter
    def lease(self, lease: Lease | None) -> None:
        self._lease = lease

    @property
    def began_at(self) -> float:
        """When that began, or the next; on the monotonic clock."""
        return self._began_at if self._trip is None else self._trip.began_at

    @began_at.setter
    def began_at(self, moment: float) -> None:
        self._began_at = moment

    async def run(self, lease: Lease) -> Outcome:
        """Run the job, as `Worker.run` promises."""
        try:
            function, args, keywords = self._calls.prepare(lease)
        except PayloadInvalid as error:
            return Unreadable(str(error))
        loop, self._lease = asyncio.get_running_loop(), lease
        self._run = run = loop.create_future()
        work = partial(self._context.copy().run, function, *args, **keywords)
        self._give(partial(_run, work, partial(self._deliver, run), self._left_behind.inbox, loop))
        try:
            outcome: Outcome = await run
        except asyncio.CancelledError:  # the worker is closed while it runs
            if run.cancelled():
                self._leave(run, lease, self._began_at, Interrupted())
            raise
        finally:
            self._run = None
        return outcome

    def run_through(self, leases: Leases, desk: Desk) -> Awaitable[bool] | None:
        """See `Worker`. None if each call needs something of its own."""
        function = self._calls.common(leases.block)
        if function is None:
            return None
        return self._travel(Trip(leases, function, self._context, self._left_behind.tray(desk), desk), desk)

    def interrupt(self, outcome: Outcome, lease: Lease | None = None) -> bool:
        """Wait for the function no longer."""
        trip, run = self._trip, self._run
        if trip is not None:
            if (left := trip.stop(outcome, lease)) is None:
                return False
            self._trip = None
            self._leave(trip, left, trip.began_at, outcome)
            return True
        if run is None or run.done() or self._lease is None or (lease is not None and lease is not self._lease):
            return False
        run.set_result(outcome)
        self._leave(run, self._lease, self._began_at, outcome)
        return True

    def place(self, thread: int) -> Place:
        """In its own thread."""
        del thread
        own = 0 if self._thread is None else self._thread.number
        return Place(os.getpid(), own, _stack_of(own))

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

    async def _travel(self, trip: Trip, desk: Desk) -> bool:
        """Let the thread run through leases until there are no more, or it is left."""
        if not trip.began:
            return False
        self._trip = trip
        desk.at_work += 1
        self._give(partial(_travel, trip, self._left_behind, asyncio.get_running_loop()))
        try:
            await trip.over
        except asyncio.CancelledError:  # the worker is closed meanwhile
            if (left := trip.leave()) is None:
                self._trip = None
            else:
                self._leave(trip, left, trip.began_at, Interrupted())
            self._left_behind.inbox.look()
            raise
        self._trip = None
        desk.at_work -= 1
        desk.tell()  # what it reported was claimed for while it was still at work
        return True

    def _give(self, errand: Callable[[], None]) -> None:
        """Send the thread on its way; there will be more work for others while it is."""
        if self._thread is None:
            self._thread = _Thread()
        self._thread.errands.put(errand)
        self.suspended = True
        self.on_suspend()

    def _leave(self, run: Run, lease: Lease, began_at: float, asked: Outcome) -> None:
        if self._thread is not None:
            self._thread.errands.put(None)  # it ends behind what it runs
            self._left_behind.left(run, LeftRun(lease, began_at, asked, self._thread))
            self._thread = None

    def _deliver(self, run: asyncio.Future[Outcome], outcome: Outcome) -> None:
        if run.done():
            self._left_behind.ended(run)
        else:
            run.set_result(outcome)


class _Thread:
    def __init__(self) -> None:
        self.errands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="cabrank-thread", daemon=True)
        self._thread.start()

    @property
    def number(self) -> int:
        return self._thread.ident or 0

    @property
    def lives(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> None:
        self.errands.put(None)
        self._thread.join(JOIN_S)

    def _serve(self) -> None:
        while (errand := self.errands.get()) is not None:
            try:
                errand()
            except RuntimeError:
                return  # the loop is closed: nobody waits any more
            del errand  # what it refers to may be waiting to be collected


def _run(work: Callable[[], object], deliver: Callable[[Outcome], None], inbox: Inbox, loop: asyncio.AbstractEventLoop) -> None:
    try:
        value = work()
    except BaseException as error:  # noqa: BLE001 -- a handler may raise anything, and only its run ends
        outcome: Outcome = Raised(error)
    else:
        outcome = RETURNED_NONE if value is None else Returned(value)
    inbox.put(partial(deliver, outcome), loop)


def _stack_of(thread: int) -> Sequence[str]:
    """What a thread of ours is in, below what calls a handler in it."""
    frames = takewhile(lambda frame: frame.f_code.co_filename not in OURS, calling(frame_of(thread)))
    return lines_of(reversed(list(frames)))


def _travel(trip: Trip, left_behind: LeftBehind, loop: asyncio.AbstractEventLoop) -> None:
    left_behind.inbox.put(trip.end if trip.go() else partial(left_behind.ended, trip), loop)
