"""How far the runs of this process are, as their handlers say it: the latest of each goes with the next turn of the store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from cabrank.batch import leases_of
from cabrank.clock import Clock
from cabrank.job import Lease, Progress

WRITTEN_S = 0.25  # how late a report may be in the store: people look, so a turn of its own is taken so often and not more


class Reports:
    """Takes reports from any thread. A report costs an entry in a mapping, however often it comes; `latest` is what was not written yet."""

    def __init__(self, latest: dict[int, Progress], clock: Clock, tell: Callable[[], None]) -> None:
        self._latest = latest
        self._clock = clock
        self._tell = tell
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = False

    def open(self) -> None:
        """Take them to this event loop from now on."""
        self._loop = asyncio.get_running_loop()

    def say(self, lease: Lease, fraction: float, note: str) -> None:
        """A run is so far; all jobs of a batch are as far as their call. From any thread."""
        at = self._clock.now()
        for one in leases_of(lease):
            self._latest[one.job.id] = Progress(one.job.id, one.run, at, fraction, note)
        if not self._told and self._loop is not None:
            self._told = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: a thread that was left behind goes on
                self._loop.call_soon_threadsafe(self._write_soon)

    def _write_soon(self) -> None:
        self._clock.call_later(WRITTEN_S, self._write)

    def _write(self) -> None:
        self._told = False  # before it is looked at: what comes now is either seen or told anew
        if self._latest:
            self._tell()
