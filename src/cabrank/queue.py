"""The claimed jobs of one queue that wait in memory for a worker. Bounded by what will start soon."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextvars import ContextVar

from cabrank.block import Leases
from cabrank.job import Lease
from cabrank.stores.contract import TURN_BYTES, TURN_ROWS, Want

RESERVATION = TURN_ROWS  # leases, however short the jobs: with less, a turn could bring more new jobs than start before the next
SMOOTHING = 0.2  # weight of the newest measurement of the run time

RUNNING_IN: ContextVar[str] = ContextVar("cabrank_running_in", default="")
"""The queue whose worker runs this code; empty outside of a job."""

WORKING_FOR: ContextVar[object] = ContextVar("cabrank_working_for", default=None)
"""The root of the dispatcher whose worker runs this code; None outside of a job. What a job starts has it too."""


class JobQueue:
    """Leases in the order in which they were claimed; they start in this order.

    `want` asks for what idle workers can start at once, and beyond that for what will start within `reserve_s` by the measured
    run time, so that short jobs never wait for a turn of the store and long ones are never held back from other processes.
    """

    def __init__(self, name: str, *, reserve_s: float) -> None:
        self.name = name
        self._reserve_s = reserve_s
        self._waiting: deque[Lease | Leases] = deque()
        self._blocks: deque[Leases] = deque()  # those of `_waiting` that are many, in its order
        self.run_s: float | None = None
        """How long a run takes, None before the first was measured."""

    def __len__(self) -> int:
        return len(self._waiting) - len(self._blocks) + sum(map(len, self._blocks))

    def __bool__(self) -> bool:
        return self.head is not None

    @property
    def head(self) -> Lease | Leases | None:
        """What is next: a lease, or leases of jobs that are alike and may be taken by whoever sees them. None: nothing waits."""
        waiting = self._waiting
        while waiting:
            head = waiting[0]
            if head.__class__ is Lease or len(head):  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] -- they are many
                return head
            waiting.popleft()
            self._blocks.popleft()
        return None

    def take(self) -> Lease:
        """Take the next lease, which must be there."""
        head = self.head
        if isinstance(head, Leases):
            return head.take()
        return self._waiting.popleft()  # type: ignore[return-value] # pyright: ignore[reportReturnType] -- the head is no `Leases`

    def extend(self, leases: Iterable[Lease | Leases]) -> None:
        """Put leases behind those that wait."""
        for lease in leases:
            self._waiting.append(lease)
            if isinstance(lease, Leases):
                self._blocks.append(lease)

    def clear(self) -> list[Lease]:
        """Take out everything that has not started."""
        leases: list[Lease] = []
        for waiting in self._waiting:
            leases += waiting.clear() if isinstance(waiting, Leases) else (waiting,)
        self._waiting.clear()
        self._blocks.clear()
        return leases

    def remove(self, fence: tuple[int, int]) -> Lease | None:
        """Take out one lease, if it is here."""
        for place, waiting in enumerate(self._waiting):
            if isinstance(waiting, Leases):
                if (found := waiting.without(fence)) is not None:
                    lease, parts = found
                    del self._waiting[place]
                    for part in reversed(parts):
                        self._waiting.insert(place, part)
                    self._blocks = deque(one for one in self._waiting if isinstance(one, Leases))
                    return lease
            elif (waiting.job.id, waiting.run) == fence:
                del self._waiting[place]
                return waiting
        return None

    def measured(self, runs: int, total_s: float) -> None:
        """`runs` runs took `total_s` seconds in all."""
        if runs:
            newest = total_s / runs
            self.run_s = newest if self.run_s is None else self.run_s + SMOOTHING * (newest - self.run_s)

    def want(self, *, idle: int, workers: int, alone: bool) -> Want:
        """What this queue can take now. `alone`: nothing else runs in this process."""
        reserve, waiting = 0, len(self)
        if self.run_s is not None and self._reserve_s:
            reserve = min(RESERVATION, int(workers * self._reserve_s / max(self.run_s, 1e-7)))
        most = max(0, idle + reserve - waiting)
        if waiting > idle and most < reserve // 2:  # a claim costs as much as tens of short jobs, and enough waits here
            most = 0
        return Want(most, TURN_BYTES, max(0, idle - waiting), alone)
