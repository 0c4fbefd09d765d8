"""The waiting jobs of one queue in memory, in the order in which they are claimed."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection
from itertools import count
from operator import attrgetter

from cabrank.job import PRIORITIES, Job
from cabrank.settings import Bound

_due_at, _priority = attrgetter("due_at"), attrgetter("priority")


class Line:
    """Ready jobs by priority and then by the moment they became ready; those due later stand apart until their time has come.

    A job that was cancelled stays in line until it comes up: whoever pops asks whether it is still wanted.
    """

    def __init__(self) -> None:
        self.count = 0
        """Jobs that wait, ready or not, those on their way included."""
        self.size = 0
        """Their payloads, in bytes."""
        self._ready: tuple[deque[Job], ...] = tuple(deque() for _ in PRIORITIES)
        self._later: list[tuple[float, int, int, Job]] = []
        self._put = count()  # a cancelled job may stand here twice, due at one moment: jobs are never compared

    def has_room(self, jobs: int, size: int, bound: Bound) -> bool:
        """Whether so many more may wait here."""
        return self.count + jobs <= bound.jobs and self.size + size <= bound.bytes

    def add(self, jobs: int, size: int) -> None:
        """Count jobs in, or out with negative numbers."""
        self.count += jobs
        self.size += size

    def extend(self, jobs: Collection[Job], now: float) -> None:
        """Put jobs into the line."""
        if not any(map(_due_at, jobs)) and len(set(map(_priority, jobs))) == 1:
            self._ready[next(iter(jobs)).priority].extend(jobs)
            return
        for job in jobs:
            if job.due_at > now:
                heapq.heappush(self._later, (job.due_at, job.id, next(self._put), job))
            else:
                self._ready[job.priority].append(job)

    def put_back(self, job: Job, ready_at: float, now: float) -> None:
        """Put a job that had been claimed into the line, to be ready at a moment."""
        if ready_at > now:
            heapq.heappush(self._later, (ready_at, job.id, next(self._put), job))
        else:
            self.promote(now)  # what became ready before stands before it
            self._ready[job.priority].append(job)

    def promote(self, now: float) -> None:
        """Make those ready whose time has come."""
        while self._later and self._later[0][0] <= now:
            *_, job = heapq.heappop(self._later)
            self._ready[job.priority].append(job)

    def next_due_at(self) -> float | None:
        """When the next job becomes ready by itself."""
        return self._later[0][0] if self._later else None

    def pop(self) -> Job | None:
        """The job to be claimed next."""
        for line in self._ready:
            if line:
                return line.popleft()
        return None

    def take(self, most: int) -> list[Job]:
        """At most so many of the jobs to be claimed next, all of one priority."""
        for line in self._ready:
            if line:
                if len(line) <= most:
                    taken = list(line)
                    line.clear()
                    return taken
                return [line.popleft() for _ in range(most)]
        return []

    def untake(self, jobs: Collection[Job]) -> None:
        """Put jobs that were taken or popped back to where they were."""
        for job in reversed(list(jobs)):
            self._ready[job.priority].appendleft(job)
