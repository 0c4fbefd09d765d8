"""The only source of time. Everything above it gets a `Clock` passed in, so that a test can own the time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol


class Timer(Protocol):
    """A call that is to come."""

    def cancel(self) -> None:
        """Let it not come. Harmless when it has come."""
        ...


class Clock(Protocol):
    """What time it is, in two senses, and how to let it pass."""

    @property
    def now(self) -> Callable[[], float]:
        """The moment, in seconds since the epoch. It can jump: use it for due times and for people."""
        ...

    @property
    def monotonic(self) -> Callable[[], float]:
        """Seconds since some moment. It never jumps: use it for durations."""
        ...

    @property
    def sleep(self) -> Callable[[float], Awaitable[None]]:
        """Let a duration in seconds pass."""
        ...

    @property
    def call_later(self) -> Callable[[float, Callable[[], object]], Timer]:
        """Call something in the event loop when so many seconds have passed."""
        ...


class SystemClock:
    """The machine's own clocks. The functions are attributes, not methods, so that a hot loop calls C and nothing else."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(asyncio.sleep)

    @staticmethod
    def call_later(duration_s: float, call: Callable[[], object]) -> Timer:
        """The running event loop's own timer."""
        return asyncio.get_running_loop().call_later(duration_s, call)
