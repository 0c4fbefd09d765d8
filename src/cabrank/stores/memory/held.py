"""What a holder of a ledger in memory runs. Jobs that are alike stand there as the block that was leased, whatever number they are."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

import msgspec

from cabrank.block import Block
from cabrank.job import Lease
from cabrank.stores.contract import Terms
from cabrank.stores.memory.rows import Run

FEW = 64  # jobs that are taken out of a list one by one, rather than a set is made of all

Ran = tuple[Sequence[int], Run | Block]
"""Ids of jobs that have ended, and what they ran as: one job by itself, or some of a block."""


class _Part:
    """A block of which some jobs run: those from `start` on that are not `over`."""

    __slots__ = ("block", "over", "start", "stop")

    def __init__(self, block: Block) -> None:
        self.block = block
        self.start = block.first
        self.stop = block.first + len(block)
        self.over: list[int] = []  # ascending, and none of them is `start`

    def has(self, id: int) -> bool:
        """Whether the job of that id runs."""
        if not self.start <= id < self.stop:
            return False
        place = bisect_left(self.over, id)
        return place == len(self.over) or self.over[place] != id

    def ids(self) -> Iterator[int]:
        """Those that run."""
        over = set(self.over)
        return (id for id in range(self.start, self.stop) if id not in over)

    def end(self, id: int) -> bool:
        """One runs no more. False: it did not."""
        if not self.has(id):
            return False
        if id == self.start:
            self._go_on([id, *self.over] if self.over else [id])
        else:
            insort(self.over, id)
        return True

    def end_all(self, ids: list[int]) -> Sequence[int]:
        """These, which ascend and are below `stop`, run no more: those of them that did, as a range if they are in a row."""
        over = self.over
        if ids[0] < self.start or (over and not set(over).isdisjoint(ids)):
            ids = [id for id in ids if self.has(id)]
        self._go_on(sorted(over + ids) if over else ids)
        return range(ids[0], ids[-1] + 1) if ids and ids[-1] - ids[0] + 1 == len(ids) else ids

    def _go_on(self, over: list[int]) -> None:
        """All of these are over, and those before `start`. Cost: little, however many there are, as long as few are out of order."""
        start, count = self.start, len(over)
        if count and over[-1] - start + 1 != count:  # somewhere one is missing that still runs
            count = bisect_right(range(count), start, key=lambda place: over[place] - place)
        self.start = start + count
        self.over = over[count:]


class Held:
    """The runs of one number. What is asked for by id is a `Run`, or the block in which the job is."""

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}
        self._firsts: list[int] = []  # of the parts, ascending
        self._parts: list[_Part] = []

    def __contains__(self, id: int) -> bool:
        return self.get(id) is not None

    def get(self, id: int) -> Run | Block | None:
        """What runs under that id."""
        found = self._runs.get(id)
        if found is not None:
            return found
        part = self._part_of(id)
        return part.block if part is not None and part.has(id) else None

    def items(self) -> Iterator[tuple[int, Run | Block]]:
        """All that runs, by id."""
        yield from self._runs.items()
        for part in self._parts:
            yield from zip(part.ids(), repeat(part.block))

    def add(self, run: Run) -> None:
        """It runs."""
        self._runs[run.lease.job.id] = run

    def add_block(self, block: Block) -> None:
        """All of its jobs run."""
        place = bisect_right(self._firsts, block.first)
        self._firsts.insert(place, block.first)
        self._parts.insert(place, _Part(block))

    def pop(self, id: int) -> Run | Block | None:
        """It runs no more: what ran, None if nothing did."""
        run = self._runs.pop(id, None)
        if run is not None:
            return run
        part = self._part_of(id)
        if part is None or not part.end(id):
            return None
        self._forget(part)
        return part.block

    def pop_all(self, ids: Sequence[int]) -> tuple[list[Ran], list[int]]:
        """These, each of which is there once, run no more: those that did, with what ran, and those that did not."""
        if len(ids) == 1:
            found = self.pop(ids[0])
            return ([], list(ids)) if found is None else ([(ids, found)], [])
        ran, lost = list[Ran](), list[int]()
        left = sorted(ids)
        if self._runs and (alone := self._runs.keys() & ids):  # mostly few of very many
            ran += [((id,), self._runs.pop(id)) for id in sorted(alone)]
            left = sorted(set(ids) - alone) if len(alone) > FEW else _without(left, alone)
        begin = 0
        while begin < len(left):
            part = self._part_of(left[begin])
            end = begin + 1 if part is None else bisect_left(left, part.stop, begin)
            its = left[begin:end]
            here = () if part is None else part.end_all(its)
            if part is not None and here:
                ran.append((here, part.block))
                self._forget(part)
            if len(here) < len(its):
                lost += sorted(set(its).difference(here))
            begin = end
        return ran, lost

    def _part_of(self, id: int) -> _Part | None:
        """Where the job of that id would be."""
        place = bisect_right(self._firsts, id)
        part = self._parts[place - 1] if place else None
        return part if part is not None and id < part.stop else None

    def _forget(self, part: _Part) -> None:
        if part.start == part.stop:
            place = bisect_left(self._firsts, part.block.first)
            del self._firsts[place], self._parts[place]


def _without(ids: list[int], some: Iterable[int]) -> list[int]:
    """The ids, which ascend, without some of them."""
    for id in some:
        del ids[bisect_left(ids, id)]
    return ids


class Holder(msgspec.Struct):
    """One opened store. `expires_at` is on the monotonic clock: infinity while its process lives and renews.

    `runs` is what it holds, by the number of the run: (run, id) is the fence.
    """

    terms: Terms
    expires_at: float = math.inf
    runs: dict[int, Held] = msgspec.field(default_factory=lambda: {1: Held()})


def run_of(id: int, held: Run | Block, holder: int) -> Run:
    """What runs under that id."""
    return Run(Lease(held.job(id), 1), holder, held.created_at, held.started_at) if isinstance(held, Block) else held


def runs_of(number: int, holder: Holder) -> Iterator[Run]:
    """What a holder runs."""
    return (run_of(id, one, number) for held in holder.runs.values() for id, one in held.items())


def leases_of(holder: Holder) -> Iterator[Lease]:
    """What a holder holds."""
    return (run.lease for run in runs_of(0, holder))
