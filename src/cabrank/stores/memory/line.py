"""The waiting jobs of one queue in memory, in the order in which they are claimed."""

from __future__ import annotations

import heapq
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import count
from operator import attrgetter

from cabrank.block import Block, first_id
from cabrank.job import PRIORITIES, Job
from cabrank.settings import Bound
from cabrank.stores.memory.aging import Since, id_of

_due_at, _priority = attrgetter("due_at"), attrgetter("priority")


class Line:
    """Ready jobs by priority and then by the moment they became ready; those due later stand apart until their time has come.

    Jobs that are alike stand in line as one `Block`. Any other job that was cancelled stays in line until it comes up: whoever
    pops asks whether it is still wanted. With `aging_s`, a job goes before those of a priority that is one better and that got
    ready so much later.
    """

    def __init__(self, aging_s: float | None = None) -> None:
        self.count = 0
        """Jobs that wait, ready or not, those on their way included."""
        self.size = 0
        """Their payloads, in bytes."""
        self._ready: tuple[deque[Job | Block], ...] = tuple(deque() for _ in PRIORITIES)
        self._later: list[tuple[float, int, int, Job]] = []
        self.since = None if aging_s is None else Since(aging_s)
        self._put = count()  # a cancelled job may stand here twice, due at one moment: jobs are never compared
        self._blocks: dict[int, Block] = {}  # those in line, by their first ids
        self._firsts: list[int] = []  # in order
        self._came: deque[tuple[int, float]] | None = None  # ids with the moments when they and those behind them came

    def has_room(self, jobs: int, size: int, bound: Bound) -> bool:
        """Whether so many more may wait here."""
        return self.count + jobs <= bound.jobs and self.size + size <= bound.bytes

    def add(self, jobs: int, size: int) -> None:
        """Count jobs in, or out with negative numbers."""
        self.count += jobs
        self.size += size

    def extend(self, jobs: Sequence[Job], now: float) -> None:
        """Put jobs into the line."""
        if self._came is not None:
            self._came.append((first_id(jobs), now))
        if isinstance(jobs, Block):
            self._stand(jobs, now)
            self._note(jobs)
            return
        if not any(map(_due_at, jobs)) and len(set(map(_priority, jobs))) == 1:
            priority = next(iter(jobs)).priority
            self._ready[priority].extend(jobs)
            if self.since is not None:
                self.since.came(priority, len(jobs), now)
            return
        for job in jobs:
            if job.due_at > now:
                heapq.heappush(self._later, (job.due_at, job.id, next(self._put), job))
            else:
                self._stand(job, now)

    def put_back(self, job: Job, ready_at: float, now: float) -> None:
        """Put a job that had been claimed into the line, to be ready at a moment."""
        if ready_at > now:
            heapq.heappush(self._later, (ready_at, job.id, next(self._put), job))
        else:
            self.promote(now)  # what became ready before stands before it
            self._stand(job, now)

    def promote(self, now: float) -> None:
        """Make those ready whose time has come."""
        while self._later and self._later[0][0] <= now:
            due_at, *_, job = heapq.heappop(self._later)
            self._stand(job, due_at)

    def next_due_at(self) -> float | None:
        """When the next job becomes ready by itself."""
        return self._later[0][0] if self._later else None

    def ready(self, priority: int) -> int:
        """How many jobs of this priority and those before it stand in line for a claim, cancelled ones included."""
        alike = sum(len(block) - 1 for block in self._blocks.values() if block.priority <= priority)
        return sum(map(len, self._ready[: priority + 1])) + alike

    def oldest_at(self, waits: Callable[[Job], bool]) -> float | None:
        """Since when what is next of a priority has been ready, of those the first; from the first call on it looks at the time.

        `waits` says whether a job is still wanted.
        """
        if self._came is None:
            self._came = deque()
        heads: list[Job | Block] = []
        for line in self._ready:
            while line and isinstance(line[0], Job) and not waits(line[0]):
                self._leave(line[0])
            if line:
                heads.append(line[0])
        first = min(map(id_of, heads), default=None)
        while len(self._came) > 1 and (first is None or self._came[1][0] <= first):
            self._came.popleft()
        moments = [self._ready_at(head) for head in heads]
        return min((at for at in moments if at is not None), default=None)

    def _ready_at(self, one: Job | Block) -> float | None:
        came = self._came or ()
        at = next((moment for first, moment in reversed(came) if first <= id_of(one)), None)
        return at if isinstance(one, Block) or not one.due_at else max(one.due_at, at or 0.0)

    def pop(self) -> Job | Block | None:
        """What is to be claimed next: a job, or jobs that are alike."""
        if self.since is not None:
            priority = self.since.next(self._ready)
            return None if priority is None else self._leave(self._ready[priority][0])
        for line in self._ready:
            if line:
                taken = line.popleft()
                if isinstance(taken, Block):
                    self._forget(taken)
                return taken
        return None

    def pop_oldest(self) -> Job | Block | None:
        """Of what is next of each priority, what was submitted first."""
        lines = [line for line in self._ready if line]
        if not lines:
            return None
        return self._leave(min(lines, key=lambda line: id_of(line[0]))[0])

    def pop_last(self) -> Job | Block | None:
        """What would be claimed last."""
        for line in reversed(self._ready):
            if line:
                taken = line.pop()
                if self.since is not None:
                    self.since.last_left(taken.priority)
                if isinstance(taken, Block):
                    self._forget(taken)
                return taken
        return None

    def untake_last(self, block: Block) -> None:
        """Put back what is left of a block that `pop_last` gave."""
        self._ready[block.priority].append(block)
        if self.since is not None:
            self.since.last_back(block.priority)
        self._note(block)

    def forget_later(self, ids: Collection[int]) -> None:
        """Take jobs out that are due later. Cost: a look at all that are."""
        self._later = [entry for entry in self._later if entry[1] not in ids]
        heapq.heapify(self._later)

    def untake(self, taken: Collection[Job | Block]) -> None:
        """Put back to where they were what was popped, or what is left of it."""
        for one in reversed(list(taken)):
            self._ready[one.priority].appendleft(one)
            if self.since is not None:
                self.since.back(one.priority)
            if isinstance(one, Block):
                self._note(one)

    def find(self, id: int) -> Job | None:
        """The job of that id, if it stands here among jobs that are alike."""
        block = self._block_of(id)
        return None if block is None else block.job(id)

    def created_at(self, id: int) -> float:
        """When the job of that id was stored, if it stands here among jobs that are alike; else 0."""
        block = self._block_of(id)
        return 0.0 if block is None else block.created_at

    def withdraw(self, id: int) -> Job | None:
        """Take a job out from among those that it is alike with, if it stands there."""
        block = self._block_of(id)
        if block is None:
            return None
        self._forget(block)
        at = id - block.first
        line = self._ready[block.priority]
        place = next(place for place, one in enumerate(line) if one is block)
        del line[place]
        parts = [part for part in (block[at + 1 :], block[:at]) if part]
        for part in parts:
            line.insert(place, part)
            self._note(part)
        if self.since is not None:
            self.since.became(block.priority, place, len(parts))
        return block.job(id)

    def blocks(self) -> Iterable[Block]:
        """The jobs that are alike."""
        return self._blocks.values()

    def _stand(self, one: Job | Block, at: float) -> None:
        """Put what got ready at a moment at the end of its priority."""
        self._ready[one.priority].append(one)
        if self.since is not None:
            self.since.came(one.priority, 1, at)

    def _leave(self, first: Job | Block) -> Job | Block:
        """Take out what is the first of its priority."""
        self._ready[first.priority].popleft()
        if self.since is not None:
            self.since.left(first.priority)
        if isinstance(first, Block):
            self._forget(first)
        return first

    def _block_of(self, id: int) -> Block | None:
        place = bisect_right(self._firsts, id)
        block = self._blocks[self._firsts[place - 1]] if place else None
        return block if block is not None and id in block.ids else None

    def _note(self, block: Block) -> None:
        self._blocks[block.first] = block
        insort(self._firsts, block.first)

    def _forget(self, block: Block) -> None:
        del self._blocks[block.first]
        del self._firsts[bisect_right(self._firsts, block.first) - 1]
