"""What a thread does by itself: one lease after another of jobs that are alike, and the event loop is told of many at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any

from cabrank.block import Call, Leases
from cabrank.job import Lease
from cabrank.policy import Outcome, Raised, Returned
from cabrank.workers.contract import Desk

NOWHERE = -1
GATHER_S = 0.001  # how long outcomes wait for others while their threads go on: a wake-up of the loop costs as much as tens of jobs


class Inbox:
    """What threads want to have called in one event loop. It is woken once for all that came since it last looked.

    What need not be called at once waits for what else comes within `GATHER_S`, as long as more comes all the time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._came: list[Callable[[], None]] = []
        self._told = False  # whether the loop was woken and has not looked
        self._gathers = False  # whether it will look by itself
        self._patient = False  # whether some of what came could have waited

    def put(self, call: Callable[[], None], loop: asyncio.AbstractEventLoop, *, at_once: bool = True) -> None:
        """Have `call` called in the loop, after what came before. In any thread.

        Raises:
            RuntimeError: the loop is closed, so nobody waits any more.
        """
        with self._lock:
            self._came.append(call)
            self._patient = self._patient or not at_once
            wakes = not self._told and (at_once or not self._gathers)
            self._told = self._told or wakes
        if wakes:
            loop.call_soon_threadsafe(self._woken, loop)

    def look(self) -> None:
        """Call what came. In the loop."""
        with self._lock:
            came, self._came = self._came, []
        for call in came:
            call()

    def _woken(self, loop: asyncio.AbstractEventLoop) -> None:
        self._told = False
        if not self._gathers:
            self._gather(loop)
        self.look()

    def _gather(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look again by itself if something came that could wait."""
        with self._lock:
            self._gathers, self._patient = self._patient, False
        if self._gathers:
            loop.call_later(GATHER_S, self._gathered, loop)

    def _gathered(self, loop: asyncio.AbstractEventLoop) -> None:
        self._gather(loop)
        self.look()


class Tray:
    """What came of runs, put down by threads and reported to their desk in the loop."""

    def __init__(self, desk: Desk, inbox: Inbox, loop: asyncio.AbstractEventLoop) -> None:
        self._desk = desk
        self._inbox = inbox
        self._loop = loop
        self._lock = threading.Lock()
        self._returned: list[int] = []  # the ids of jobs whose runs returned None
        self._outcomes: list[tuple[Leases, int, Outcome]] = []  # of all others
        self._run_s = 0.0  # of all

    def put(self, leases: Leases, at: int, outcome: Outcome | None, run_s: float) -> None:
        """Put down the outcome of a run; None: it returned None. In any thread; raises what `Inbox.put` does."""
        with self._lock:
            first = not (self._returned or self._outcomes)
            if outcome is None:
                self._returned.append(leases.block.first + at)
            else:
                self._outcomes.append((leases, at, outcome))
            self._run_s += run_s
        if first:
            self._inbox.put(self._report, self._loop, at_once=False)

    def _report(self) -> None:
        with self._lock:
            returned, outcomes, run_s = self._returned, self._outcomes, self._run_s
            self._returned, self._outcomes, self._run_s = [], [], 0.0
        desk = self._desk
        desk.first_runs.extend(returned)
        for leases, at, outcome in outcomes:
            desk.report(leases.lease(at), outcome)
        desk.ended += len(returned) + len(outcomes)
        desk.running_s += run_s
        if returned:
            desk.tell()


class Trip:
    """The runs of one thread through leases that are alike, until none is left or the thread is left behind.

    The next is taken, and a run is given up, under the leases' `guard`: whoever asks a run to stop meets that run or none.
    """

    def __init__(self, leases: Leases, function: Callable[..., Any], context: Context, tray: Tray, desk: Desk) -> None:
        """Take the first of them, if there is one: `began` says so."""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when it has ended, or was given up."""
        self.began_at = desk.monotonic()
        self._leases = leases
        self._function = function
        self._context = context
        self._tray = tray
        self._desk = desk
        self._lease: Lease | None = None
        self._left = False
        self._at = leases.take_position()

    @property
    def began(self) -> bool:
        """Whether there was a first one to take."""
        return self._at != NOWHERE

    @property
    def lease(self) -> Lease | None:
        """What it runs now; the same object as long as it does. In the loop."""
        at = self._at
        if at == NOWHERE:
            return None
        if self._lease is None or self._lease.job.id != self._leases.block.first + at:
            self._lease = self._leases.lease(at)
        return self._lease

    def go(self) -> bool:
        """Run them. In the thread. False: it was left meanwhile."""
        function, items, copy, at = self._function, self._leases.block.items, self._context.copy, self._at
        one = self._leases.block.call is Call.ONE
        while at != NOWHERE:
            try:
                value = copy().run(function, items[at]) if one else copy().run(function, *items[at])
            except BaseException as error:  # noqa: BLE001 -- a handler may raise anything, and only its run ends
                at = self._next(at, Raised(error))
            else:
                at = self._next(at, None if value is None else Returned(value))
                del value  # what it refers to may be waiting to be collected
        return not self._left

    def leave(self, lease: Lease | None = None) -> Lease | None:
        """Let the thread take no more, and forget what it runs, which comes back; with `lease`, only if it still runs that."""
        with self._leases.guard:
            at = self._at
            if at == NOWHERE or self._left or (lease is not None and lease.job.id != self._leases.block.first + at):
                return None
            self._left = True
        return self.lease

    def stop(self, outcome: Outcome, lease: Lease | None) -> Lease | None:
        """As `leave`, and `outcome` is what came of the run. None: there is none to leave."""
        left, desk = self.leave(lease), self._desk
        if left is None:
            return None
        desk.report(left, outcome)
        desk.ended += 1
        desk.running_s += desk.monotonic() - self.began_at
        self.over.set_result(None)
        return left

    def end(self) -> None:
        """It has ended. In the loop."""
        if not self.over.done():
            self.over.set_result(None)

    def _next(self, at: int, outcome: Outcome | None) -> int:
        """Put the outcome down (None: it returned None) and take the next."""
        moment = self._desk.monotonic()
        with self._leases.guard:
            if self._left:
                return NOWHERE
            run_s, self.began_at = moment - self.began_at, moment
            self._at = next(self._leases.positions, NOWHERE)
        self._tray.put(self._leases, at, outcome, run_s)
        return self._at
