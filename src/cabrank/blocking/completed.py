"""Handles as their jobs end, for callers without a loop. Each of the loops that they come from tells one queue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import cabrank.handle
import cabrank.results
from cabrank.blocking.handle import JobHandle
from cabrank.clock import SystemClock
from cabrank.errors import UsedAfterFork
from cabrank.loopthread import LoopThread

R = TypeVar("R")

Wanted = dict[cabrank.handle.JobHandle[R], JobHandle[R]]
"""Those of one loop whose jobs have not ended, by what they are there."""


def as_completed(handles: Iterable[JobHandle[R]], *, timeout_s: float | None = None) -> Iterator[JobHandle[R]]:
    """The handles in the order in which their jobs end; `handle.result()` then does not wait. As `cabrank.as_completed`.

    Handles of several dispatchers may be mixed; one that is given twice comes once. A job that has no outcome here (held, gone,
    unknown, its dispatcher stopped) comes too, and its `result()` says why. Leaving early cancels nothing.

    Raises:
        TimeoutError: `timeout_s` seconds after the first was asked for not all have come. The jobs go on, and calling again is safe.
    """
    until = None if timeout_s is None else SystemClock.monotonic() + timeout_s
    came: SimpleQueue[JobHandle[R]] = SimpleQueue()
    wanted: dict[LoopThread, Wanted[R]] = {}
    every = {handle.within()[0]: handle for handle in handles}
    for inner, handle in every.items():
        if handle.settled:
            came.put(handle)
        else:
            wanted.setdefault(handle.within()[1], {})[inner] = handle
    watches = [watch for thread, its in wanted.items() if (watch := _watched(thread, its, came)) is not None]
    try:
        for number in range(len(every)):
            try:
                yield came.get(timeout=None if until is None else max(0.0, until - SystemClock.monotonic()))
            except Empty:
                raise TimeoutError(f"{len(every) - number} of {len(every)} jobs have not ended within {timeout_s:g} s") from None
    finally:
        for watch in watches:
            watch.cancel()


def _watched(thread: LoopThread, its: Wanted[R], came: SimpleQueue[JobHandle[R]]) -> Future[None] | None:
    """Have the loop tell. None: it is not in this process, and nobody tells."""
    try:
        watch = thread.call(partial(_watch, its, came))
    except UsedAfterFork:
        _rest(its, came, None)
        return None
    watch.add_done_callback(partial(_rest, its, came))
    return watch


async def _watch(its: Wanted[R], came: SimpleQueue[JobHandle[R]]) -> None:
    async for inner in cabrank.results.as_completed(tuple(its)):
        came.put(its.pop(inner))


def _rest(its: Wanted[R], came: SimpleQueue[JobHandle[R]], _: Future[Any] | None) -> None:
    """Nobody tells any more of these: their `result()` says why."""
    while its:
        came.put(its.popitem()[1])
