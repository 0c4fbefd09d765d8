"""Which worker runs this code, and which jobs the code of a run waits for: so that a pool that waits for itself is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import msgspec

from cabrank.job import Lease
from cabrank.workers.contract import Worker


class Wait(msgspec.Struct, frozen=True, eq=False):
    """Code of the run `lease` waits for the outcome of a job, which `prefix` and `number` name."""

    future: asyncio.Future[Any]
    prefix: str
    number: int
    lease: Lease | None

    def fail(self, error: Exception) -> None:
        """Let the wait end with an error. It may be in another thread."""

        def fail() -> None:
            if not self.future.done():
                self.future.set_exception(error)

        self.future.get_loop().call_soon_threadsafe(fail)


class Seat:
    """The place of a worker, from which the code of its runs looks at the world."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self._waits: dict[asyncio.Future[Any], Wait] = {}

    def waits(self, prefix: str) -> Sequence[Wait]:
        """What the run that is on now waits for, of the store with that prefix."""
        if not self._waits:
            return []
        lease = None if self.worker is None else self.worker.lease
        return [wait for wait in tuple(self._waits.values()) if wait.lease is lease is not None and wait.prefix == prefix]

    def note(self, future: asyncio.Future[Any], prefix: str, number: int) -> None:
        """Code of the run that is on now waits for a job until `future` is done."""
        self._waits[future] = Wait(future, prefix, number, None if self.worker is None else self.worker.lease)
        future.add_done_callback(lambda future: self._waits.pop(future, None))


SEAT: ContextVar[Seat | None] = ContextVar("cabrank_seat", default=None)
"""The place of the worker that runs this code; None outside of a job."""


def note(future: asyncio.Future[Any], prefix: str, number: int) -> None:
    """Whoever runs this waits for the outcome of a job until `future` is done."""
    seat = SEAT.get()
    if seat is not None:
        seat.note(future, prefix, number)
