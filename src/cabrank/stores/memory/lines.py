"""The lines of limited handlers in memory: for each key of each a line of ready jobs, and what its limit allows now."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import count

import msgspec

from cabrank.job import Job
from cabrank.policy import Limit

OPEN, FULL = 0.0, -1.0


class Line(msgspec.Struct, eq=False):
    """One allowance.

    `opens_at` says whether a claim looks at it: at `OPEN` it does; None means that no job of it is ready, `FULL` that as many run as
    may, and a moment of the monotonic clock that its rate allows no start before it. `place` is where it stands among the lines.
    """

    queue: str
    handler: str
    key: str
    place: int
    opens_at: float | None = None
    full_at: float = 0.0
    running: set[int] = set()
    ready: list[tuple[int, float, int, int, Job]] = []

    @property
    def head(self) -> Job:
        """The job that is next."""
        return self.ready[0][4]


class Lines:
    """Every line there is. The line that was served the longest ago is served first, one job at a time.

    A job that was cancelled stays in line until it comes up: `waits` says whether a job is still wanted.
    """

    def __init__(self, waits: Callable[[Job], bool]) -> None:
        self._waits = waits
        self._lines: dict[tuple[str, str, str], Line] = {}
        self._runs: dict[int, Line] = {}
        self._open: dict[tuple[str, str], list[tuple[int, int, Line]]] = {}
        self._closed: list[tuple[float, int, Line]] = []
        self._later: list[tuple[float, int, Job]] = []
        self._numbers = count()

    def __bool__(self) -> bool:
        """Whether any job has a limit."""
        return bool(self._lines)

    def __iter__(self) -> Iterator[Line]:
        return iter(self._lines.values())

    def of(self, job: Job) -> Line | None:
        """The line of a job, if it has one."""
        return None if job.limit_key is None else self._lines.get((job.queue, job.handler, job.limit_key))

    # ------------------------------------------------------------------------------------------------- what becomes ready

    def put(self, job: Job, ready_at: float, now: float) -> None:
        """Put a job into its line, to be ready at a moment. A line that had nothing ready stands behind all others."""
        if ready_at > now:
            heapq.heappush(self._later, (ready_at, next(self._numbers), job))
            return
        self.promote(now)
        line = self._line(job)
        heapq.heappush(line.ready, (job.priority, ready_at, job.id, next(self._numbers), job))
        if line.opens_at is None:
            line.place = next(self._numbers)
            self._reopen(line)

    def promote(self, now: float) -> None:
        """Make those ready whose time has come."""
        while self._later and self._later[0][0] <= now:
            ready_at, _, job = heapq.heappop(self._later)
            self.put(job, ready_at, now)

    def next_due_at(self) -> float | None:
        """When the next job becomes ready by itself."""
        return self._later[0][0] if self._later else None

    def oldest_at(self, queue: str) -> float | None:
        """Since when the job in the lines of a queue that has been ready the longest has been. Cost: a look at each job in them."""
        lines = [line for line in self._lines.values() if line.queue == queue]
        for line in lines:
            self._pass_over(line)
        return min((entry[1] for line in lines for entry in line.ready), default=None)

    def _pass_over(self, line: Line) -> None:
        """Take out those in front that nobody wants any more."""
        while line.ready and not self._waits(line.head):
            heapq.heappop(line.ready)

    def forget(self, ids: Collection[int]) -> None:
        """Take jobs out that wait, ready or not. Cost: a look at all that do."""
        self._later = [entry for entry in self._later if entry[2].id not in ids]
        heapq.heapify(self._later)
        for line in self._lines.values():
            line.ready = [entry for entry in line.ready if entry[2] not in ids]
            heapq.heapify(line.ready)

    def ended(self, ids: Iterable[int]) -> None:
        """These jobs, if they ran, do so no more."""
        for id in ids:
            line = self._runs.pop(id, None)
            if line is not None:
                line.running.discard(id)
                if line.opens_at == FULL:
                    self._reopen(line)

    # ------------------------------------------------------------------------------------------------------------- claims

    def next(self, queue: str, limits: Mapping[str, Limit], handlers: Iterable[str], now: float) -> Line | None:
        """The line whose turn it is, of those of these handlers that may start a job at `now`, a monotonic moment."""
        self._let_open(now)
        lines = (self._first(queue, handler, limits.get(handler), now) for handler in handlers if (queue, handler) in self._open)
        return min((line for line in lines if line is not None), key=lambda line: line.place, default=None)

    def take(self, line: Line, limits: Mapping[str, Limit], now: float) -> Job:
        """Take the next job of a line; it runs from now on."""
        *_, job = heapq.heappop(line.ready)
        line.running.add(job.id)
        self._runs[job.id] = line
        limit = limits.get(line.handler)
        if limit is not None:
            line.full_at = limit.spend(full_at=line.full_at, now=now, jobs=1)
        line.place = next(self._numbers)
        self._reopen(line)
        return job

    def next_open_at(self) -> float | None:
        """The monotonic moment when the next line opens because its rate allows a start."""
        while self._closed and self._closed[0][2].opens_at != self._closed[0][0]:
            heapq.heappop(self._closed)
        return self._closed[0][0] if self._closed else None

    def prune(self, now: float) -> None:
        """Forget lines that stand for nothing any more."""
        idle = [key for key, line in self._lines.items() if line.opens_at is None and not line.running and line.full_at <= now]
        for key in idle:
            del self._lines[key]

    def _line(self, job: Job) -> Line:
        key = job.queue, job.handler, job.limit_key or ""
        if key not in self._lines:
            self._lines[key] = Line(*key, next(self._numbers))
        return self._lines[key]

    def _reopen(self, line: Line) -> None:
        line.opens_at = OPEN
        heapq.heappush(self._open.setdefault((line.queue, line.handler), []), (line.place, next(self._numbers), line))

    def _let_open(self, now: float) -> None:
        while (opens_at := self.next_open_at()) is not None and opens_at <= now:
            *_, line = heapq.heappop(self._closed)
            self._reopen(line)

    def _first(self, queue: str, handler: str, limit: Limit | None, now: float) -> Line | None:
        """The first line of a handler that may start a job. Those before it that may not are closed."""
        lines = self._open[queue, handler]
        while lines:
            place, _, line = lines[0]
            if line.opens_at == OPEN and line.place == place:
                line.opens_at = self._opens_at(line, limit, now)
                if line.opens_at == OPEN:
                    return line
                if line.opens_at is not None and line.opens_at > 0:
                    heapq.heappush(self._closed, (line.opens_at, next(self._numbers), line))
            heapq.heappop(lines)
        del self._open[queue, handler]
        return None

    def _opens_at(self, line: Line, limit: Limit | None, now: float) -> float | None:
        self._pass_over(line)
        if not line.ready:
            return None
        if limit is None or limit.open(running=len(line.running), full_at=line.full_at, now=now, most=1):
            return OPEN
        if limit.running is not None and len(line.running) >= limit.running:
            return FULL
        return limit.next_at(full_at=line.full_at, now=now)
