"""Whether new jobs find room in the file: in each queue and in all together, by number, bytes and age, and on the disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import apsw

from cabrank.job import PRIORITIES
from cabrank.settings import GIB, MIB, STORE_BOUND, Bound, Settings
from cabrank.stores.contract import Admission, Verdict, full
from cabrank.stores.sqlite.counts import Opening, Waiting
from cabrank.stores.sqlite.names import Names
from cabrank.stores.sqlite.schema import CHECKPOINT_PAGES, Phase

LOOK_S = 0.25  # how long a look at the disk counts: a call of the system hands the interpreter's lock over
FULL_S = 1.0  # how long a disk that was full is not tried again with new jobs
NARROW = 64 * MIB  # with less free than this, some space is held back
RESERVE = 4 * MIB  # what is held back: the log of a full disk is kept well below this
FULL_CHECKPOINT_PAGES = 100

_IN_LINE = f"""
select min(due_at) from allowance join job indexed by job_limited on job.allowance = allowance.id
where job.allowance is not null and phase = {int(Phase.IN_LINE)} and allowance.queue = ?1
"""
_READY = f"select min(due_at) from job where phase = {int(Phase.READY)} and queue = ?1 and priority = "
_OLDEST_OF = (*(f"{_READY}{priority}" for priority in PRIORITIES), _IN_LINE)
# (queue) → since when the job that has been ready the longest has been, of each priority and of those in line for a limit
OLDEST = f"select {', '.join(f'({one})' for one in _OLDEST_OF)}"


class Rooms:
    """The room of one turn."""

    def __init__(self, connection: apsw.Connection, *, queues: Names, opening: Opening, settings: Settings, now: float, space: str) -> None:
        self._connection = connection
        self._queues = queues
        self._opening = opening
        self._settings = settings
        self._now = now
        self._space = space
        self._known: dict[str, tuple[Waiting, Bound]] = {}
        self._ages: dict[int, float | None] = {}

    def of(self, queue: str) -> tuple[Waiting, Bound]:
        """What waits in a queue, and the bound for new jobs."""
        found = self._known.get(queue)
        if found is None:
            found = self._opening.queue(self._queues.number(queue)), self._settings.room_of(queue, STORE_BOUND)
            self._known[queue] = found
        return found

    def refusal(self, needed: Mapping[str, tuple[int, int]]) -> Admission | None:
        """Which bound refuses jobs that need so much in each queue, if one does."""
        if self._space:
            return Admission(Verdict.NO_SPACE, queue=next(iter(needed)), bound=self._space)
        for queue, (jobs, size) in needed.items():
            waiting, bound = self.of(queue)
            said = bound.refusal(waiting.jobs, waiting.size, jobs, size)
            if not said and bound.is_timed:
                said = bound.too_old(self._now, self._oldest_at([self._queues.number(queue)]))
            if said:
                return full(queue, said)
        return self._of_all(needed) if self._settings.bounds_all else None

    def take(self, brought: Mapping[str, tuple[int, int]]) -> None:
        """Count jobs in."""
        for queue, (jobs, size) in brought.items():
            self.of(queue)[0].add(jobs, size)

    def _of_all(self, needed: Mapping[str, tuple[int, int]]) -> Admission | None:
        bound, queues = self._settings.bound_of_all, self._opening.queues
        jobs, size = sum(jobs for jobs, _ in needed.values()), sum(size for _, size in needed.values())
        there = sum(waiting.jobs for waiting in queues.values()), sum(waiting.size for waiting in queues.values())
        said = bound.refusal(*there, jobs, size)
        if not said and bound.is_timed:
            said = bound.too_old(self._now, self._oldest_at(queues))
        return full(next(iter(needed)), f"in the whole store {said}") if said else None

    def _oldest_at(self, queues: Iterable[int]) -> float | None:
        for queue in queues:
            if queue not in self._ages:
                moments: Any = self._connection.execute(OLDEST, (queue,)).get
                self._ages[queue] = min((at for at in moments if at is not None), default=None)
        return min((at for queue in queues if (at := self._ages[queue]) is not None), default=None)


class Space:
    """What is free on the disk of a file, looked at now and then.

    Where little is, a file beside it holds some space back, which is let go when a write finds none: finished work is recorded in that.
    """

    def __init__(self, path: Path, floor: int, monotonic: Callable[[], float]) -> None:
        self._path = path
        self._reserve = path.with_name(path.name + "-reserve")
        self._floor = floor
        self._monotonic = monotonic
        self._said = ""
        self._full = False
        self._until = float("-inf")

    def shortage(self, connection: apsw.Connection) -> str:
        """Why no new jobs are taken on, in words; empty if there is space."""
        now = self._monotonic()
        if now < self._until:
            return self._said
        self._until = now + LOOK_S
        free = self._free()
        if free < NARROW:
            self._hold_back(free)
        if self._full:
            self._full = False
            connection.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
        short = free < self._floor
        self._said = f"{_bytes(free)} are free where {self._path} lies, min_free is {_bytes(self._floor)}" if short else ""
        return self._said

    def ran_out(self, connection: apsw.Connection) -> None:
        """A write found no space: let go what was held back, and keep the log short, so that this lasts."""
        self._said, self._full = f"the disk of {self._path} is full", True
        self._until = self._monotonic() + FULL_S
        self._reserve.unlink(missing_ok=True)
        connection.execute(f"pragma wal_autocheckpoint = {FULL_CHECKPOINT_PAGES}")

    def _free(self) -> int:
        try:
            disk = os.statvfs(self._path)
        except OSError:
            return max(NARROW, self._floor)  # the turn itself finds out what is wrong
        return disk.f_bavail * disk.f_frsize

    def _hold_back(self, free: int) -> None:
        if self._reserve.exists() or free < RESERVE * 2:
            return
        try:
            with self._reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE)
        except OSError:
            self._reserve.unlink(missing_ok=True)


def _bytes(number: int) -> str:
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{number / MIB:.1f} MiB"
