"""Finished jobs that can still be asked for, kept compactly: one entry a turn and handler."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from cabrank.block import Block
from cabrank.job import FailedRun, Settlement
from cabrank.states import State
from cabrank.stores.contract import JobRecord, Terms, as_finished
from cabrank.stores.memory.held import Ran
from cabrank.stores.memory.rows import Run

FEW = 64  # jobs of a block that are kept with those of others: an entry takes as much as these
Failed = Mapping[int, tuple[int, Sequence[FailedRun]]]
"""By the id of a job that returned: the number of its last run, and those that failed before."""


def failed_before(returned: Sequence[Run | Block]) -> Failed:
    """What failed before of jobs that return together, as it is kept."""
    runs = {one.lease.job.id: one for one in returned if isinstance(one, Run) and one.failed}
    if not runs:
        return {}
    errors = as_finished({id: run.failed for id, run in runs.items()})
    return {id: (runs[id].lease.run, its) for id, its in errors.items()}


class _Entry(msgspec.Struct):
    at: float
    created: Sequence[float]
    """When the jobs were created, each by itself; of jobs that were created together one moment."""
    until: float
    handler: str
    queue: str
    ids: array[int] | range
    results: dict[int, Settlement]
    failed: Failed
    size: int
    in_order: bool = False

    def has(self, id: int) -> bool:
        """Whether it is here. Cost: the first question sorts."""
        if isinstance(self.ids, range):
            return id in self.ids
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

    def add(self, ran: Sequence[Ran], results: Mapping[int, Settlement], failed: Failed, terms: Terms, now: float) -> None:
        """Keep jobs that returned in one turn, what came of those that have a result, and what failed before.

        Cost: 8 bytes for each; nearly nothing for those of a block whose ids are in a row.
        """
        for (handler, queue), numbers, created in _by_handler(ran):
            keep_s = terms.keep_done_s.get(handler, terms.settings.keep_done_s)
            own = {id: results[id] for id in numbers if id in results} if results else {}
            errors = {id: failed[id] for id in numbers if id in failed} if failed else {}
            size = sum(len(s.result) for s in own.values() if s.result is not None)
            size += sum(len(one.error) for _, its in errors.values() for one in its)
            kept = numbers if isinstance(numbers, range) else array("q", numbers)
            self._entries.append(_Entry(now, created, now + keep_s, handler, queue, kept, own, errors, size))
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


def _by_handler(ran: Sequence[Ran]) -> Iterator[_Alike]:
    """The jobs by handler and queue, and when they were created. Those of one block are found without a look at each."""
    others: dict[tuple[str, str], tuple[list[int], array[float]]] = {}
    for ids, one in ran:
        if isinstance(one, Block) and len(ids) > FEW:
            yield (one.handler, one.queue), ids, (one.created_at,)
            continue
        job = one if isinstance(one, Block) else one.lease.job
        numbers, created = others.setdefault((job.handler, job.queue), ([], array("d")))
        numbers += ids
        created.extend([one.created_at] * len(ids))
    for names, (numbers, created) in others.items():
        yield names, numbers, created[:1] if created.count(created[0]) == len(created) else created
