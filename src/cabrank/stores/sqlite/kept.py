"""Finished jobs that can still be asked for: one compact row a turn and handler, their ids as packed 64-bit numbers."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import apsw
import msgspec

from cabrank.job import FailedRun, Settlement
from cabrank.settings import Settings
from cabrank.states import State
from cabrank.stores.contract import JobRecord, Returned, as_finished
from cabrank.stores.sqlite import block_statements as block_sql
from cabrank.stores.sqlite import packed, past
from cabrank.stores.sqlite import past_statements as sql
from cabrank.stores.sqlite.blocks import Own

Born = float | str | None
"""When jobs were created: one moment for all of a block, or how old each was when it ended, or nothing, as an earlier version kept it."""
_Row = tuple[float, str, str, Born, Sequence[int], bytes | None]  # when they ended, handler, queue, when they were created, ids, results
_id = attrgetter("id")
ONE_BY_ONE = 4  # ids that are looked up each by itself; for more, all rows are read that lie between the least and the greatest


class Keeping(msgspec.Struct, frozen=True):
    """How long finished jobs are kept: `else_s` seconds, but for those of handlers (by number) that say it themselves."""

    by_handler: Mapping[int, float]
    else_s: float

    @property
    def alike(self) -> str:
        """See `keep_alike`."""
        own = "".join(f" when {handler:d} then {keep_s:f}" for handler, keep_s in self.by_handler.items())
        return sql.keep_alike(f"case min(handler){own} else {self.else_s:f} end" if own else f"{self.else_s:f}")

    def until(self, handler: int, now: float) -> float:
        """The moment up to which a job that ends now can be asked for."""
        return now + self.by_handler.get(handler, self.else_s)


class _Result(msgspec.Struct, array_like=True):
    """What is kept of a job beside its id, if anything is."""

    id: int
    run: int
    result: msgspec.Raw
    failed: list[FailedRun] = []
    has_result: bool = True


_decode = msgspec.json.Decoder(list[_Result]).decode


def add(connection: apsw.Connection, settlements: Sequence[Settlement], returned: Returned, keeping: Keeping, now: float) -> None:
    """Keep what returned in one turn: with a result, if there was one, and None. The rows of the jobs are still there."""
    ids = array("q", sorted(chain(map(_id, settlements), *returned.values())))
    failed = _failed_runs(connection, settlements, returned)
    results = {s.id: _entry(s.id, s.run, s.result, failed) for s in settlements if s.result is not None or s.id in failed}
    results.update({id: _entry(id, run, None, failed) for run, its in returned.items() for id in its if id in failed} if failed else ())
    text = msgspec.json.encode(list(results.values())) if results else None
    packed_ids = packed.ids(ids)
    connection.execute(keeping.alike, (now, ids[0], ids[-1], len(ids), ids.tobytes(), text, len(text or b""), packed_ids))
    if not connection.changes():
        _add_apart(connection, ids, results, keeping, now)


def rows_of(whole: Sequence[Own], settlements: Sequence[Settlement], keeping: Keeping, now: float) -> str:
    """What `KEEP_BLOCKS` keeps of blocks that end as a whole. Each job of them ran once."""
    entries = {s.id: _entry(s.id, 1, s.result, {}) for s in settlements if s.result is not None}
    rows: list[object] = []
    for own in whole:
        its = [entries[id] for id in own.ids if id in entries] if entries else []
        text = msgspec.json.encode(its).decode() if its else None
        rows.append((own.first, own.jobs, keeping.until(own.handler, now), text))
    return packed.rows(rows)


def _add_apart(connection: apsw.Connection, ids: array[int], results: Mapping[int, object], keeping: Keeping, now: float) -> None:
    """Keep jobs of several handlers or queues."""
    for handler, queue, its, ages in _by_handler(connection, ids, now):
        own = [results[id] for id in its if id in results]
        text = msgspec.json.encode(own) if own else None
        until = keeping.until(handler, now)
        values = (now, until, handler, queue, its[0], its[-1], len(its), its.tobytes(), text, len(text or b""), ages)
        connection.execute(sql.KEEP_DONE, values)


def find(connection: apsw.Connection, ids: Collection[int]) -> dict[int, JobRecord]:
    """Those of these jobs that are kept. Cost: for more than a few, a look at all that are kept between the least and the greatest."""
    wanted = set(ids)
    spans = [(id, id) for id in wanted] if len(wanted) <= ONE_BY_ONE else [(min(wanted), max(wanted))]
    found: dict[int, JobRecord] = {}
    for span in spans:
        for at, handler, queue, born, numbers, text in _kept_between(connection, span):
            here = wanted.intersection(numbers)
            if not here:
                continue
            wanted -= here
            results = {one.id: one for one in _decode(text) if one.id in here} if text else {}
            found.update((id, _record(id, at, handler, queue, created_at(id, at, numbers, born), results.get(id))) for id in here)
            if not wanted:
                return found
    return found


def _kept_between(connection: apsw.Connection, span: tuple[int, int]) -> Iterator[_Row]:
    """What is kept of jobs between two ids."""
    for at, handler, queue, created_at, first, jobs, text in connection.execute(block_sql.FIND_DONE_BLOCKS, span):
        yield at, handler, queue, created_at, range(first, first + jobs), text
    for at, handler, queue, ages, ids, text in connection.execute(sql.FIND_DONE, span):
        yield at, handler, queue, ages, array("q", ids), text


def created_at(id: int, at: float, ids: Sequence[int], born: Born) -> float:
    """When a job of a row was created, exact to a microsecond; 0 where that is not kept, as by an earlier version."""
    if not isinstance(born, str):
        return born or 0.0
    place = bisect_left(ids, id)
    created_at = at - int(born.split(",", place + 1)[place]) / 1e6
    return created_at if created_at > 1 else 0.0


def prune(connection: apsw.Connection, settings: Settings, now: float) -> None:
    """Forget the oldest beyond the bounds of age, number and bytes."""
    connection.execute(sql.OLD_DONE, (now,))
    connection.execute(block_sql.OLD_DONE_BLOCKS, (now,))
    kept: Any = connection.execute(sql.KEPT).get
    jobs, size = kept
    if jobs > settings.keep_done_jobs or size > settings.keep_done_bytes:  # else no sum of each row with all newer ones is needed
        excess: Any = connection.execute(sql.EXCESS, (settings.keep_done_jobs, settings.keep_done_bytes)).get
        connection.execute(sql.EXCESS_DONE, excess)
        connection.execute(sql.EXCESS_DONE_BLOCKS, excess)


def _record(id: int, at: float, handler: str, queue: str, born_at: float, kept: _Result | None) -> JobRecord:
    run = 0 if kept is None else kept.run
    record = JobRecord(id=id, handler=handler, queue=queue, state=State.DONE, run=run, created_at=born_at, changed_at=at)
    if kept is None:
        return record
    failures = sum(not one.crashed for one in kept.failed)
    return msgspec.structs.replace(
        record,
        failures=failures,
        crashes=len(kept.failed) - failures,
        failed_runs=kept.failed,
        result=bytes(kept.result) if kept.has_result else None,
    )


def _failed_runs(connection: apsw.Connection, settlements: Sequence[Settlement], returned: Returned) -> Mapping[int, Sequence[FailedRun]]:
    again = [s.id for s in settlements if s.run > 1] + [id for run, its in returned.items() if run > 1 for id in its]
    if not again:
        return {}
    return as_finished(past.failed_runs(connection, again))


def _entry(id: int, run: int, result: bytes | None, failed: Mapping[int, Sequence[FailedRun]]) -> list[object]:
    its = failed.get(id) if failed else None
    entry: list[object] = [id, run, msgspec.Raw(b"null" if result is None else result)]
    return [*entry, its, result is not None] if its else entry


def _by_handler(connection: apsw.Connection, ids: array[int], now: float) -> Iterator[tuple[int, int, array[int], str]]:
    """The jobs by their handlers and queues, and their ages. Of those whose leases are lost some may be missing."""
    rows: list[Any] = connection.execute(sql.BY_HANDLER, (now, packed.ids(ids))).fetchall()
    for handler, queue, its in rows:
        pairs = sorted(msgspec.json.decode(its, type=list[tuple[int, int]]))
        yield handler, queue, array("q", [id for id, _ in pairs]), ",".join(str(age) for _, age in pairs)
