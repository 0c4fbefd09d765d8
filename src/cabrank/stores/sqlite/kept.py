"""Finished jobs that can still be asked for: one compact row a turn and handler, their ids as packed 64-bit numbers."""

from __future__ import annotations

from array import array
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
    ids = array("q", chain(map(_id, settlements), *returned.values()))
    failed = _failed_runs(connection, settlements, returned)
    results = {s.id: _entry(s.id, s.run, s.result, failed) for s in settlements if s.result is not None or s.id in failed}
    results.update({id: _entry(id, run, None, failed) for run, its in returned.items() for id in its if id in failed} if failed else ())
    text = msgspec.json.encode(list(results.values())) if results else None
    packed_ids = packed.ids(ids)
    connection.execute(keeping.alike, (now, min(ids), max(ids), len(ids), ids.tobytes(), text, len(text or b""), packed_ids))
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
    for handler, queue, its in _by_handler(connection, ids):
        own = [results[id] for id in its if id in results]
        text = msgspec.json.encode(own) if own else None
        until = keeping.until(handler, now)
        values = (now, until, handler, queue, min(its), max(its), len(its), its.tobytes(), text, len(text or b""))
        connection.execute(sql.KEEP_DONE, values)


def find(connection: apsw.Connection, ids: Collection[int]) -> dict[int, JobRecord]:
    """Those of these jobs that are kept. Cost: for more than a few, a look at all that are kept between the least and the greatest."""
    wanted = set(ids)
    spans = [(id, id) for id in wanted] if len(wanted) <= ONE_BY_ONE else [(min(wanted), max(wanted))]
    found: dict[int, JobRecord] = {}
    for span in spans:
        for at, handler, queue, numbers, text in _kept_between(connection, span):
            here = wanted.intersection(numbers)
            if not here:
                continue
            wanted -= here
            results = {one.id: one for one in _decode(text) if one.id in here} if text else {}
            found.update((id, _record(id, at, handler, queue, results.get(id))) for id in here)
            if not wanted:
                return found
    return found


def _kept_between(connection: apsw.Connection, span: tuple[int, int]) -> Iterator[tuple[float, str, str, Sequence[int], bytes | None]]:
    """What is kept of jobs between two: moment, handler, queue, ids, results."""
    for at, handler, queue, first, jobs, text in connection.execute(block_sql.FIND_DONE_BLOCKS, span):
        yield at, handler, queue, range(first, first + jobs), text
    for at, handler, queue, ids, text in connection.execute(sql.FIND_DONE, span):
        yield at, handler, queue, array("q", ids), text


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


def _record(id: int, at: float, handler: str, queue: str, kept: _Result | None) -> JobRecord:
    record = JobRecord(id=id, handler=handler, queue=queue, state=State.DONE, run=0 if kept is None else kept.run, changed_at=at)
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


def _by_handler(connection: apsw.Connection, ids: array[int]) -> Iterator[tuple[int, int, array[int]]]:
    """The jobs by their handlers and queues. Of those whose leases are lost some may be missing."""
    rows: list[Any] = connection.execute(sql.BY_HANDLER, (packed.ids(ids),)).fetchall()
    for handler, queue, its in rows:
        yield handler, queue, array("q", msgspec.json.decode(its, type=list[int]))
