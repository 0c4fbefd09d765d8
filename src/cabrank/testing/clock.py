"""A clock that stands still until the test moves it."""

from __future__ import annotations

import asyncio
import heapq

START_AT = 1_700_000_000.0  # a moment like any other, in November 2023


class FakeClock:
    """A `Clock` whose time passes only in `advance` and jumps only in `jump`."""

    def __init__(self, now: float = START_AT) -> None:
        self._now = now
        self._monotonic = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._slept = 0

    def now(self) -> float:
        """The moment, in seconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._monotonic

    async def sleep(self, duration_s: float) -> None:
        """Wait until the test has let `duration_s` seconds pass; 0 only gives the event loop a turn."""
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._slept += 1  # so that equal moments never compare futures
        heapq.heappush(self._sleepers, (self._monotonic + duration_s, self._slept, waker))
        await waker

    async def advance(self, duration_s: float) -> None:
        """Let time pass. Whoever sleeps is woken at its own moment, in order, and runs until it waits again."""
        ends_at = self._monotonic + duration_s
        while self._sleepers and self._sleepers[0][0] <= ends_at:
            wakes_at, _, waker = heapq.heappop(self._sleepers)
            self._pass_until(wakes_at)
            if not waker.done():
                waker.set_result(None)
                await asyncio.sleep(0)
        self._pass_until(ends_at)

    def jump(self, duration_s: float) -> None:
        """Set the wall clock forward or back, as an administrator does. Durations do not notice."""
        self._now += duration_s

    def _pass_until(self, monotonic: float) -> None:
        passed_s = max(0.0, monotonic - self._monotonic)
        self._now += passed_s
        self._monotonic += passed_s
