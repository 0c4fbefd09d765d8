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
NO_ERRORS: Mapping[int, Sequence[FailedRun]] = {}


class _Entry(msgspec.Struct):
    at: float
    until: float
    handler: str
    queue: str
    ids: array[int] | range
    results: dict[int, Settlement]
    failed: dict[int, tuple[int, Sequence[FailedRun]]]
    """Of jobs of which runs failed: the number of the last one, and those."""
    size: int
    in_order: bool = False

    def has(self, id: int) -> bool:
        """Whether it is here. Cost: the first question sorts."""
        if isinstance(self.ids, range):
            return id in self.ids
        if not self.in_order:
            self.ids = array("q", sorted(self.ids))
            self.in_order = True
        place = bisect_left(self.ids, id)
        return place < len(self.ids) and self.ids[place] == id


class Kept:
    """Bounded by age, by number and by the bytes of results. The oldest goes first."""

    def __init__(self, *, jobs: int, size: int) -> None:
        self._most_jobs = jobs
        self._most_bytes = size
        self._entries: deque[_Entry] = deque()
        self._jobs = 0
        self._bytes = 0

    def add(self, ran: Sequence[Ran], results: Mapping[int, Settlement], terms: Terms, now: float) -> None:
        """Keep jobs that returned in one turn, and what came of those that have a result.

        Cost: 8 bytes for each; nearly nothing for those of a block whose ids are in a row.
        """
        for (handler, queue), numbers, its in _by_handler(ran):
            keep_s = terms.keep_done_s.get(handler, terms.settings.keep_done_s)
            own = {id: results[id] for id in numbers if id in results} if results else {}
            runs = {one.lease.job.id: one for one in its if one.failed}
            errors = as_finished({id: run.failed for id, run in runs.items()}) if runs else NO_ERRORS
            failed = {id: (runs[id].lease.run, its_errors) for id, its_errors in errors.items()}
            size = sum(len(s.result) for s in own.values() if s.result is not None)
            size += sum(len(one.error) for its_errors in errors.values() for one in its_errors)
            kept = numbers if isinstance(numbers, range) else array("q", numbers)
            self._entries.append(_Entry(now, now + keep_s, handler, queue, kept, own, failed, size))
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
            changed_at=entry.at,
            failed_runs=failed,
            result=None if settlement is None else settlement.result,
            value=None if settlement is None else settlement.value,
        )

    def _forget(self, entry: _Entry) -> None:
        self._jobs -= len(entry.ids)
        self._bytes -= entry.size


_Alike = tuple[tuple[str, str], Sequence[int], Sequence[Run]]


def _by_handler(ran: Sequence[Ran]) -> Iterator[_Alike]:
    """The jobs by handler and queue, those apart that ran by themselves. Those of one block are found without a look at each."""
    others: dict[tuple[str, str], tuple[list[int], list[Run]]] = {}
    for ids, one in ran:
        if isinstance(one, Block) and len(ids) > FEW:
            yield (one.handler, one.queue), ids, ()
            continue
        job = one if isinstance(one, Block) else one.lease.job
        numbers, its = others.setdefault((job.handler, job.queue), ([], []))
        numbers += ids
        if isinstance(one, Run):
            its.append(one)
    for names, (numbers, its) in others.items():
        yield names, numbers, its
