"""The claimed jobs of one queue that wait in memory for a worker. Bounded by what will start soon."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextvars import ContextVar

from cabrank.job import Lease
from cabrank.stores.contract import TURN_BYTES, TURN_ROWS, Want

RESERVATION = TURN_ROWS  # leases, however short the jobs: with less, a turn could bring more new jobs than start before the next
SMOOTHING = 0.2  # weight of the newest measurement of the run time

RUNNING_IN: ContextVar[str] = ContextVar("cabrank_running_in", default="")
"""The queue whose worker runs this code; empty outside of a job."""


class JobQueue:
    """Leases in the order in which they were claimed; they start in this order.

    `want` asks for what idle workers can start at once, and beyond that for what will start within `reserve_s` by the measured
    run time, so that short jobs never wait for a turn of the store and long ones are never held back from other processes.
    """

    def __init__(self, name: str, *, reserve_s: float) -> None:
        self.name = name
        self._reserve_s = reserve_s
        self.leases: deque[Lease] = deque()
        """What waits, next first. Whoever takes one runs it."""
        self._run_s: float | None = None

    def __len__(self) -> int:
        return len(self.leases)

    def __bool__(self) -> bool:
        return bool(self.leases)

    def extend(self, leases: Iterable[Lease]) -> None:
        """Put leases behind those that wait."""
        self.leases.extend(leases)

    def clear(self) -> list[Lease]:
        """Take out everything that has not started."""
        leases = list(self.leases)
        self.leases.clear()
        return leases

    def remove(self, fence: tuple[int, int]) -> Lease | None:
        """Take out one lease, if it is here."""
        for lease in self.leases:
            if (lease.job.id, lease.run) == fence:
                self.leases.remove(lease)
                return lease
        return None

    def measured(self, runs: int, total_s: float) -> None:
        """`runs` runs took `total_s` seconds in all."""
        if runs:
            newest = total_s / runs
            self._run_s = newest if self._run_s is None else self._run_s + SMOOTHING * (newest - self._run_s)

    def want(self, *, idle: int, workers: int, alone: bool) -> Want:
        """What this queue can take now. `alone`: nothing else runs in this process."""
        reserve = 0
        if self._run_s is not None and self._reserve_s:
            reserve = min(RESERVATION, int(workers * self._reserve_s / max(self._run_s, 1e-7)))
        return Want(max(0, idle + reserve - len(self.leases)), TURN_BYTES, max(0, idle - len(self.leases)), alone)
