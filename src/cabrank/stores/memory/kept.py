"""Finished jobs that can still be asked for, kept compactly: one entry a turn and handler."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter

import msgspec

from cabrank.block import Block
from cabrank.job import FailedRun, Settlement
from cabrank.states import State
from cabrank.stores.contract import JobRecord, Terms, as_finished
from cabrank.stores.memory.rows import Run

Failed = Mapping[int, tuple[int, Sequence[FailedRun]]]
"""By the id of a job that returned: the number of its last run, and those that failed before."""


def failed_before(returned: Sequence[Run | Block]) -> Failed:
    """What failed before of jobs that return together, as it is kept."""
    runs = {one.lease.job.id: one for one in returned if isinstance(one, Run) and one.failed}
    if not runs:
        return {}
    errors = as_finished({id: run.failed for id, run in runs.items()})
    return {id: (runs[id].lease.run, its) for id, its in errors.items()}


_created_at = attrgetter("created_at")


class _Entry(msgspec.Struct):
    at: float
    created: Sequence[float]
    """When the jobs were created, each by itself; of jobs that were created together one moment."""
    until: float
    handler: str
    queue: str
    ids: array[int]
    results: dict[int, Settlement]
    failed: Failed
    size: int
    in_order: bool = False

    def has(self, id: int) -> bool:
        """Whether it is here. Cost: the first question sorts."""
        if not self.in_order:
            if len(self.created) > 1:
                self.created = [created_at for _, created_at in sorted(zip(self.ids, self.created, strict=True))]
            self.ids = array("q", sorted(self.ids))
            self.in_order = True
        place = bisect_left(self.ids, id)
        return place < len(self.ids) and self.ids[place] == id

    def created_at(self, id: int) -> float:
        """When a job that is here was created."""
        return self.created[bisect_left(self.ids, id) if len(self.created) > 1 else 0]


class Kept:
    """Bounded by age, by number and by the bytes of results. The oldest goes first."""

    def __init__(self, *, jobs: int, size: int) -> None:
        self._most_jobs = jobs
        self._most_bytes = size
        self._entries: deque[_Entry] = deque()
        self._jobs = 0
        self._bytes = 0

    def add(
        self,
        ids: Sequence[int],
        held: Sequence[Run | Block],
        results: Mapping[int, Settlement],
        failed: Failed,
        terms: Terms,
        now: float,
    ) -> None:
        """Keep jobs that returned: their ids, as what they ran, what came of those that have a result, what failed before.

        Cost: 8 bytes for each, little time for those that ran as one block.
        """
        for (handler, queue), numbers, created in _by_handler(ids, held):
            keep_s = terms.keep_done_s.get(handler, terms.settings.keep_done_s)
            own = {id: results[id] for id in numbers if id in results} if results else {}
            errors = {id: failed[id] for id in numbers if id in failed} if failed else {}
            size = sum(len(s.result) for s in own.values() if s.result is not None)
            size += sum(len(one.error) for _, its in errors.values() for one in its)
            self._entries.append(_Entry(now, created, now + keep_s, handler, queue, array("q", numbers), own, errors, size))
            self._jobs += len(numbers)
            self._bytes += size
        while self._entries and (self._jobs > self._most_jobs or self._bytes > self._most_bytes or self._entries[0].until < now):
            self._forget(self._entries.popleft())

    def prune(self, now: float) -> None:
        """Forget those whose time is over, also behind others that are kept longer."""
        over = [entry for entry in self._entries if entry.until < now]
        if over:
            self._entries = deque(entry for entry in self._entries if entry.until >= now)
            for entry in over:
                self._forget(entry)

    def ids(self, now: float, queue: str, handler: str) -> Iterator[int]:
        """The jobs that are kept, of a queue and a handler where those are given."""
        entries = (entry for entry in self._entries if entry.until >= now)
        return (id for entry in entries if queue in {"", entry.queue} and handler in {"", entry.handler} for id in entry.ids)

    def find(self, id: int, now: float) -> JobRecord | None:
        """What is known of a job, None if it is not kept. Cost: a look into each turn kept."""
        entry = next((entry for entry in reversed(self._entries) if entry.until >= now and entry.has(id)), None)
        if entry is None:
            return None
        settlement, (run, failed) = entry.results.get(id), entry.failed.get(id, (0, ()))
        crashes = sum(one.crashed for one in failed)
        return JobRecord(
            id=id,
            handler=entry.handler,
            queue=entry.queue,
            state=State.DONE,
            run=run if settlement is None else settlement.run,
            failures=len(failed) - crashes,
            crashes=crashes,
            created_at=entry.created_at(id),
            changed_at=entry.at,
            failed_runs=failed,
            result=None if settlement is None else settlement.result,
            value=None if settlement is None else settlement.value,
        )

    def _forget(self, entry: _Entry) -> None:
        self._jobs -= len(entry.ids)
        self._bytes -= entry.size


_Alike = tuple[tuple[str, str], Sequence[int], Sequence[float]]


def _by_handler(ids: Sequence[int], held: Sequence[Run | Block]) -> Iterator[_Alike]:
    """The jobs by handler and queue, and when they were created. What ran as one block is found without a look at each."""
    start, others = 0, dict[tuple[str, str], tuple[list[int], list[Run | Block]]]()
    while start < len(held):
        first = held[start]
        end = _end_of(first, held, start) if isinstance(first, Block) else start
        if end > start and isinstance(first, Block):
            yield (first.handler, first.queue), ids[start:end], (first.created_at,)
            start = end
            continue
        job = first if isinstance(first, Block) else first.lease.job
        numbers, its = others.setdefault((job.handler, job.queue), ([], []))
        numbers.append(ids[start])
        its.append(first)
        start += 1
    for names, (numbers, its) in others.items():
        yield names, numbers, _created(its)


def _created(held: Sequence[Run | Block]) -> Sequence[float]:
    """When each was created; one moment if that was the same."""
    each = array("d", map(_created_at, held))
    return each[:1] if each.count(each[0]) == len(each) else each


def _end_of(block: Block, held: Sequence[Run | Block], start: int) -> int:
    """Where the runs of a block end that stand side by side from `start` on; `start` if they stand scattered."""
    low, high = start, min(len(held), start + len(block))
    if held[high - 1] is not block:
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if held[middle] is block else (low, middle)
        high = low + 1
    part = held[start:high]
    return high if part.count(block) == len(part) else start
