"""Priorities that rise with waiting, in memory: since when what stands in line has been ready, and whose turn that makes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from cabrank.block import Block
from cabrank.job import PRIORITIES, Job
from cabrank.stores.memory.lines import Line as LimitLine


class Since:
    """The moments of what stands in the lines of one queue, one line for each priority: runs of entries that got ready together.

    What is put back in front gets the moment of what was in front last, which is its own unless several were taken out.
    """

    def __init__(self, aging_s: float) -> None:
        self.aging_s = aging_s
        self.left_at = 0.0
        """The moment of what left in front last."""
        self._runs: tuple[deque[list[float]], ...] = tuple(deque() for _ in PRIORITIES)  # how many, since when

    def came(self, priority: int, entries: int, at: float) -> None:
        """Some came at the end."""
        runs = self._runs[priority]
        if runs and runs[-1][1] == at:
            runs[-1][0] += entries
        else:
            runs.append([entries, at])

    def left(self, priority: int) -> None:
        """One left in front."""
        self.left_at = self._first(priority)
        self._runs[priority][0][0] -= 1

    def back(self, priority: int) -> None:
        """One was put back in front."""
        runs = self._runs[priority]
        if runs:
            runs[0][0] += 1
        else:
            runs.append([1, self.left_at])

    def last_left(self, priority: int) -> None:
        """The last one left."""
        runs = self._runs[priority]
        while not runs[-1][0]:
            runs.pop()
        runs[-1][0] -= 1

    def last_back(self, priority: int) -> None:
        """The last one was put back."""
        self._runs[priority][-1][0] += 1

    def became(self, priority: int, place: int, entries: int) -> None:
        """The one at `place` became so many: none, or its parts."""
        for run in self._runs[priority]:
            if place < run[0]:
                run[0] += entries - 1
                return
            place -= int(run[0])

    def next(self, lines: Sequence[deque[Job | Block]]) -> int | None:
        """The priority whose turn it is."""
        waiting = [priority for priority in PRIORITIES if lines[priority]]
        return min(waiting, key=lambda priority: (self._first(priority) + priority * self.aging_s, id_of(lines[priority][0])), default=None)

    def _first(self, priority: int) -> float:
        runs = self._runs[priority]
        while not runs[0][0]:
            runs.popleft()
        return runs[0][1]


class Ages(Protocol):
    """A queue's line, which may keep moments."""

    @property
    def since(self) -> Since | None:
        """They."""
        ...


def id_of(one: Job | Block) -> int:
    """The id of a job, or of the first of those that are alike."""
    return one.first if isinstance(one, Block) else one.id


def goes_first(limited: LimitLine, free: Job | Block, line: Ages) -> bool:
    """Whether the job that is next in the line of its limit goes before what was taken last out of the queue's line."""
    if line.since is None:
        return (limited.head.priority, limited.head.id) < (free.priority, id_of(free))
    aging_s = line.since.aging_s
    return limited.ready[0][1] + limited.head.priority * aging_s < line.since.left_at + free.priority * aging_s


def before(block: Block, limited: LimitLine | None, line: Ages) -> int:
    """How many jobs of the block are next before the first of a limit's line that is behind its first."""
    if limited is None or line.since is not None or limited.head.priority > block.priority:
        return len(block)
    return min(len(block), limited.head.id - block.first)
