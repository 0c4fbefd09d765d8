"""An event loop in virtual time with a shuffled ready queue, in which single processes can be frozen and killed."""

from __future__ import annotations

import asyncio
import heapq
import inspect
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from functools import partial
from random import Random
from typing import Any


class Life:
    """One life of one process, as the loop sees it. Whatever starts within it belongs to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frozen = False
        self.freezes = 0
        self.dead = False
        self.withheld: list[asyncio.Handle] = []
        self.coroutines: list[asyncio.Task[Any]] = []

    @property
    def unfinished(self) -> list[asyncio.Task[Any]]:
        """What was started within it and has not ended."""
        return [one for one in self.coroutines if not one.done()]

    def bury(self) -> None:
        """Close what a killed process left standing, so that nothing complains of it later. Its `finally` blocks run here."""
        for one in self.unfinished:
            coroutine: Any = one.get_coro()
            for _ in range(50):
                if inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED:
                    break
                try:
                    coroutine.close()
                except RuntimeError:
                    continue  # it awaited something while it was being closed


LIFE: ContextVar[Life | None] = ContextVar("life", default=None)
"""The life that this code belongs to; None for what stands outside of all processes: clients, the network, fate."""


MOST_STEPS = 2_000_000  # of one run: some hundred times what a long one takes


class Deadlock(Exception):
    """Nothing is scheduled, so nothing will ever happen again; or things happen again and again, and no time passes."""


class Over(Exception):
    """The run was ended."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """Time jumps to the next timer when nothing is ready. What is ready runs in an order drawn from `rng`.

    Shuffling breaks the first-in-first-out of `call_soon`, on which transports rely: there are no sockets here. What can be read and
    written are the ends of `ends.py`, which call by themselves.
    """

    def __init__(self, rng: Random) -> None:
        super().__init__()
        self._elapsed = 0.0
        self._rng = rng
        self.steps = 0
        self._over = False
        self.set_task_factory(_started_within_its_life)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] -- coroutines only

    def time(self) -> float:
        return self._elapsed

    def _write_to_self(self) -> None:
        """Nobody calls from another thread, so nobody needs to be woken."""

    def end(self) -> None:
        """Let nothing happen any more: `Over` is raised."""
        self._over = True

    def post(self, handle: asyncio.Handle) -> None:
        """Let it be called with what is ready next."""
        self._ready.append(handle)  # type: ignore[attr-defined]

    def add_reader(self, fd: Any, callback: Callable[..., object], *args: Any) -> None:  # type: ignore[override]
        fd.read_by(partial(callback, *args))

    def remove_reader(self, fd: Any) -> None:  # type: ignore[override]
        fd.read_by(None)

    def add_writer(self, fd: Any, callback: Callable[..., object], *args: Any) -> None:  # type: ignore[override]
        fd.written_by(partial(callback, *args))

    def remove_writer(self, fd: Any) -> None:  # type: ignore[override]
        fd.written_by(None)

    def freeze(self, life: Life) -> None:
        """Let nothing of `life` run until it is thawed."""
        life.frozen = True
        life.freezes += 1

    def thaw(self, life: Life) -> None:
        life.frozen = False
        withheld, life.withheld = life.withheld, []
        self._ready.extend(withheld)  # type: ignore[attr-defined]

    def kill(self, life: Life) -> None:
        """Let nothing of `life` ever run again. Nothing in it is told."""
        life.dead = True
        life.withheld.clear()
        for one in life.unfinished:
            one._log_destroy_pending = False  # type: ignore[attr-defined]

    def _run_once(self) -> None:
        if self._over:
            raise Over
        if self.steps > MOST_STEPS:
            raise Deadlock(f"{MOST_STEPS:,} steps, and no end")
        ready = self._ready  # type: ignore[attr-defined]
        timers = self._scheduled  # type: ignore[attr-defined]
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            if not timers:
                raise Deadlock("nothing is scheduled")
            self._elapsed = max(self._elapsed, timers[0]._when)
        while timers and timers[0]._when <= self._elapsed:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            ready.append(timer)
        batch = list(ready)
        ready.clear()
        self._rng.shuffle(batch)
        self.steps += len(batch)
        for handle in batch:
            self._run(handle)

    def _run(self, handle: asyncio.Handle) -> None:
        if handle.cancelled():
            return
        life = handle._context.get(LIFE)  # type: ignore[attr-defined]
        if life is not None and (life.dead or life.frozen):
            if not life.dead:
                life.withheld.append(handle)
            return
        handle._run()


def _started_within_its_life(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], *, context: Context | None = None, **more: Any
) -> asyncio.Task[Any]:
    started = asyncio.Task(coroutine, loop=loop, context=context, **more)
    life = LIFE.get() if context is None else context.get(LIFE)
    if life is not None:
        life.coroutines.append(started)
    return started
