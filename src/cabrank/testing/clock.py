"""A clock that stands still until the test moves it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from functools import partial
from typing import Any

START_AT = 1_700_000_000.0  # a moment like any other, in November 2023
MOST_TURNS = 10_000  # of the event loop for what is due at one moment: what then still goes on waits for no time
ROUNDING_S = 1e-6  # a moment since the epoch is exact to 0.2 microseconds
TURNS = 50  # where the loop does not say whether anything is left to do
GATHERED_S = 0.003  # real time: what gathers for a slice of the event loop has been recorded then


class FakeTimer:
    """A call that comes when the test has moved the clock so far."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call: Callable[[], object] | None = call

    @property
    def cancelled(self) -> bool:
        """Whether it will not come."""
        return self._call is None

    def cancel(self) -> None:
        """Let it not come."""
        self._call = None

    def fire(self) -> None:
        """It comes."""
        if self._call is not None:
            self._call()


class FakeClock:
    """A `Clock` whose time passes only in `advance` and jumps only in `jump`.

    Give it to a `Dispatcher` with a store in memory: `await clock.advance(60)` then runs what is due within a minute, each at its
    own moment, retries included. A stop waits on this clock too: leave with `stop(grace_s=0)`, or advance. With another store, or
    on threads, jobs take real time besides: await what you wait for.
    """

    def __init__(self, now: float = START_AT) -> None:
        self._began_at = now
        self._monotonic = 0.0
        self._timers: list[tuple[float, int, FakeTimer]] = []
        self._set = 0

    def now(self) -> float:
        """The moment, in seconds since the epoch."""
        return self._began_at + self._monotonic

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._monotonic

    async def sleep(self, duration_s: float) -> None:
        """Wait until the test has let `duration_s` seconds pass; 0 only gives the event loop a turn."""
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(duration_s, partial(_wake, waker))
        try:
            await waker
        finally:
            timer.cancel()

    def call_later(self, duration_s: float, call: Callable[[], object]) -> FakeTimer:
        """Call something when the test has let so many seconds pass."""
        timer = FakeTimer(call)
        self._set += 1  # so that equal moments never compare timers
        heapq.heappush(self._timers, (self._monotonic + max(0.0, duration_s), self._set, timer))
        return timer

    async def advance(self, duration_s: float) -> None:
        """Let time pass. Whoever sleeps is woken at its own moment, in order, and all that follows happens before time goes on."""
        ends_at = self._monotonic + duration_s
        await _all_wait()
        while self._timers and self._timers[0][0] <= ends_at + ROUNDING_S:
            fires_at, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self._pass_until(fires_at)
                timer.fire()
                await _all_wait()
        self._pass_until(ends_at)
        await asyncio.sleep(GATHERED_S)
        await _all_wait()

    def jump(self, duration_s: float) -> None:
        """Set the wall clock forward or back, as an administrator does. Durations do not notice."""
        self._began_at += duration_s

    def _pass_until(self, monotonic: float) -> None:
        self._monotonic = max(self._monotonic, monotonic)


def _wake(waker: asyncio.Future[None]) -> None:
    if not waker.done():
        waker.set_result(None)


async def _all_wait() -> None:
    """Return when nothing in the event loop can go on by itself: everybody waits, for time, a thread, a file or a socket."""
    ready: Any = getattr(asyncio.get_running_loop(), "_ready", None)  # asyncio's own loops have it, uvloop's has not
    for turn in range(MOST_TURNS):
        await asyncio.sleep(0)
        if not ready and (ready is not None or turn >= TURNS):
            return
