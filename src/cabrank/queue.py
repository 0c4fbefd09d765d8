"""The claimed jobs of one queue that wait in memory for a worker. Bounded by what will start soon."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from operator import length_hint

from cabrank.batch import Batch
from cabrank.block import Leases
from cabrank.handler import AnyHandler
from cabrank.job import Lease
from cabrank.stores.contract import SUSPECT_CRASHES, TURN_BYTES, TURN_ROWS, Want

RESERVATION = TURN_ROWS  # leases, however short the jobs: with less, a turn could bring more new jobs than start before the next
HOLD_S = 0.005  # of work, by the measured run time, that a busy worker may hold: for so long an idle one may miss it
HOLD = 64  # leases: enough that a worker never waits for the event loop
SMOOTHING = 0.2  # weight of the newest measurement of the run time

RUNNING_IN: ContextVar[str] = ContextVar("cabrank_running_in", default="")
"""The queue whose worker runs this code; empty outside of a job."""

WORKING_FOR: ContextVar[object] = ContextVar("cabrank_working_for", default=None)
"""The root of the dispatcher whose worker runs this code; None outside of a job. What a job starts has it too."""


class JobQueue:
    """Leases in the order in which they were claimed; they start in this order.

    `want` asks for what idle workers can start at once, and beyond that for what will start within `reserve_s` by the measured
    run time, so that short jobs never wait for a turn of the store and long ones are never held back from other processes.

    Jobs of batch handlers stand together in the `Line` of their handler, which has one place here: that of the first of them.
    """

    def __init__(self, name: str, *, reserve_s: float, lines: Iterable[Line] = (), mixed: bool = False) -> None:
        self.name = name
        self._reserve_s = reserve_s
        self._lines = {line.name: line for line in lines}
        self._mixed = mixed
        self._waiting: deque[Lease | Leases | Line] = deque()
        self._blocks: deque[Leases] = deque()  # those of `_waiting` that are many, in its order
        self.run_s: float | None = None
        """How long a run takes, None before the first was measured."""
        self.wants_more = False
        """Whether more can be taken than `want` said last, because a batch has begun. Whoever acts on that resets it."""

    def __len__(self) -> int:
        if not self._waiting and not self._lines:
            return 0
        waiting = len(self._waiting) - len(self._blocks) + sum(map(len, self._blocks))
        return waiting + sum(len(line) - line.here for line in self._lines.values()) if self._lines else waiting

    def __bool__(self) -> bool:
        return self.head is not None

    def __contains__(self, id: int) -> bool:
        """Whether the job of that id waits here. Cost: a look at what does."""
        if any(id in line for line in self._lines.values()):
            return True
        return any(
            one.job.id == id if isinstance(one, Lease) else not isinstance(one, Line) and any(lease.job.id == id for lease in one)
            for one in self._waiting
        )

    @property
    def head(self) -> Lease | Leases | Line | None:
        """What is next: a lease, or leases of jobs that are alike and may be taken by whoever sees them, or a line of which a worker
        takes a batch. None: nothing waits that a worker could begin with.
        """
        waiting = self._waiting
        while waiting:
            head = waiting[0]
            if isinstance(head, Leases):  # the usual thing first
                if length_hint(head.positions):
                    return head
            elif head.__class__ is Lease or len(head):  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] -- they are many
                return head
            waiting.popleft()
            if isinstance(head, Line):
                head.here = False
            else:
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
            if self._lines and (line := self._line_of(lease)) is not None:
                line.join(lease)
                self._place(line)
                continue
            self._waiting.append(lease)
            if isinstance(lease, Leases):
                self._blocks.append(lease)

    def put_first(self, leases: Sequence[Lease]) -> None:
        """Put leases that were taken before those that wait."""
        self._waiting.extendleft(reversed(leases))

    def take_line(self) -> Line:
        """Take the line that is next out of its place, which must be there. It is put back when a worker has looked after it."""
        line = self._waiting.popleft()
        assert isinstance(line, Line)  # noqa: S101 -- the head is one
        line.here = False
        return line

    def put_back(self, line: Line) -> None:
        """Let the line be next, if anything is in it."""
        if line and not line.here:
            line.here = True
            self._waiting.appendleft(line)

    def take_batch(self) -> list[Lease]:
        """Take a batch of the line that is next; what is left of it stands behind what waits."""
        line = self.take_line()
        batch = line.take_batch()
        self._place(line)
        return batch

    def hurry(self) -> None:
        """Hold no batch back any more."""
        for line in self._lines.values():
            line.hurry()

    def clear(self) -> list[Lease]:
        """Take out everything that has not started."""
        leases: list[Lease] = []
        for waiting in self._waiting:
            leases += (waiting,) if isinstance(waiting, Lease) else waiting.clear()
        for line in self._lines.values():
            leases += line.clear()
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
            elif isinstance(waiting, Line):
                its = waiting.remove(fence)
                if its is not None and waiting.name not in self._lines:  # it was the line of this one alone
                    del self._waiting[place]
                if its is not None:
                    return its
            elif (waiting.job.id, waiting.run) == fence:
                del self._waiting[place]
                return waiting
        found_elsewhere = (line.remove(fence) for line in self._lines.values() if not line.here)
        return next((lease for lease in found_elsewhere if lease is not None), None)

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
        startable = self._startable(idle)
        most = max(0, startable + reserve - waiting)
        if waiting > startable and most < reserve // 2:  # a claim costs as much as tens of short jobs, and enough waits here
            most = 0
        return Want(most, TURN_BYTES, max(0, startable - waiting), alone)

    def most_held(self, workers: int) -> int:
        """How many leases one of the workers, all of which are busy, may hold: its part of what waits, if it takes less than `HOLD_S`."""
        if not self.run_s or not self._reserve_s:
            return 1
        return max(1, min(HOLD, int(min(HOLD_S, self._reserve_s) / self.run_s), 1 + len(self) // max(1, workers)))

    def _startable(self, idle: int) -> int:
        """How many jobs idle workers can start. In a queue with other handlers too, batches are claimed for once one has begun."""
        if not self._lines or (self._mixed and not any(map(len, self._lines.values()))):
            return idle
        return min(TURN_ROWS, idle * max(line.batch.jobs for line in self._lines.values()))

    def _line_of(self, lease: Lease | Leases) -> Line | None:
        """Where it waits for others, or alone, if it must not run with others."""
        line = self._lines.get(lease.job.handler if isinstance(lease, Lease) else lease.block.handler)
        return line if line is None or lease.crashes < line.alone_from else line.for_one()

    def _place(self, line: Line) -> None:
        """Let the line stand behind what waits, unless it does already, or a worker looks after it."""
        if line.here or line.full is not None or not line:
            return
        line.here = True
        self.wants_more = self._mixed
        self._waiting.append(line)


class Line(JobQueue):
    """Claimed jobs of one batch handler in the order of their claims.

    A job whose next crash would give it up, or that may be the cause of crashes, has a line of its own.
    """

    def __init__(self, handler: AnyHandler, batch: Batch, *, max_crashes: int, monotonic: Callable[[], float]) -> None:
        super().__init__(handler.name, reserve_s=0.0)
        self.handler = handler
        self.batch = batch
        self.here = False
        """Whether it has its place in the queue."""
        self.full: asyncio.Future[None] | None = None
        """What the worker waits for that looks after it: done when a batch is full, or the line was emptied."""
        self.alone_from = min(SUSPECT_CRASHES, (handler.max_crashes or max_crashes) - 1)
        """A job with so many crashes runs alone."""
        self._max_crashes = max_crashes
        self._monotonic = monotonic
        self._since = 0.0
        self._wait_s = batch.wait_s

    def for_one(self) -> Line:
        """A line of the same handler for one job."""
        line = Line(self.handler, Batch(jobs=1, wait_s=0), max_crashes=self._max_crashes, monotonic=self._monotonic)
        line.name = f"{self.name}, alone"  # no handler has such a name
        return line

    def join(self, lease: Lease | Leases) -> None:
        """One more, or several that are alike."""
        if not self._waiting or self.head is None:
            self._since = self._monotonic()
        self._waiting.append(lease)
        if not isinstance(lease, Lease):
            self._blocks.append(lease)
        if self.full is not None and len(self) >= self.batch.jobs:
            self._tell()

    def missing_s(self) -> float:
        """For how long more jobs are to be waited for."""
        return 0.0 if len(self) >= self.batch.jobs else self._since + self._wait_s - self._monotonic()

    def hurry(self) -> None:
        """Wait for no more jobs from now on."""
        self._wait_s = 0.0
        self._tell()

    def take_batch(self) -> list[Lease]:
        """Take the jobs of one call."""
        taken: list[Lease] = []
        left = self.batch.bytes
        while len(taken) < self.batch.jobs and (head := self.head) is not None:
            if isinstance(head, Lease):  # looked at first: the other one is an abstract base class's, which is slow to tell
                lease = head
                self._waiting.popleft()
            else:
                lease = self.take()
            left -= len(lease.job.payload)
            if left < 0 and taken:
                self._waiting.appendleft(lease)
                break
            taken.append(lease)
        self._since = self._monotonic()
        return taken

    def clear(self) -> list[Lease]:
        """Take out everything."""
        self.here = False
        self._tell()
        return super().clear()

    def _tell(self) -> None:
        if self.full is not None and not self.full.done():
            self.full.set_result(None)
