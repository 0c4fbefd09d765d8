"""Jobs page by page, in the order of their ids. Whatever the backlog and the filter, a page costs a bounded look."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from heapq import nsmallest
from typing import Any

import apsw
import msgspec

from cabrank.job import FailedRun, Progress
from cabrank.states import State
from cabrank.stores.contract import JobFilter, JobRecord, Page
from cabrank.stores.sqlite import block_statements as block_sql
from cabrank.stores.sqlite import kept
from cabrank.stores.sqlite import past_statements as past_sql
from cabrank.stores.sqlite import statements as sql
from cabrank.stores.sqlite.schema import SHELF_OF, STATE_OF, Phase

LAST_ID = 2**63 - 1
LOOKED_AT = 20_000  # rows of one look: about 20 ms, and the next look goes on behind them


def browse(connection: apsw.Connection, which: JobFilter, after: int, limit: int) -> Page:
    """See `Inspector.browse`."""
    if which.state is State.DONE:
        return _done(connection, which, after, limit)
    if which.state is State.RUNNING:
        in_blocks = _rows(connection, block_sql.BROWSE_BLOCKS, (after, limit, which.queue, which.handler, LAST_ID))
        rows = _rows(connection, sql.BROWSE_RUNNING, (after, limit, which.queue, which.handler))
        return _page(_merged(in_blocks, rows, limit), limit, None)
    if which.state is not None and which.state is not State.WAITING:
        return _shelved(connection, which, SHELF_OF[which.state], after, limit)
    looked, last = _look(connection, sql.LOOK_AT_ALL, (after, LOOKED_AT))
    values = (after, limit, which.queue, which.handler, last if looked == LOOKED_AT else LAST_ID)  # blocks may stand behind all rows
    if which.state is None:
        in_blocks = _rows(connection, block_sql.BROWSE_BLOCKS, values)
        rows = _merged(in_blocks, _rows(connection, sql.BROWSE, values), limit)
    else:
        rows = _rows(connection, sql.BROWSE_WAITING, values)
    return _page(rows, limit, last if looked == LOOKED_AT else None)


def _merged(in_blocks: Sequence[JobRecord], rows: Sequence[JobRecord], limit: int) -> Sequence[JobRecord]:
    """The first of both. One that has left its block between the two looks is in both."""
    found = {record.id: record for record in (*in_blocks, *rows)}
    return sorted(found.values(), key=lambda record: record.id)[:limit]


def _shelved(connection: apsw.Connection, which: JobFilter, phase: Phase, after: int, limit: int) -> Page:
    """By queue, as the index has them, and then merged."""
    records: list[JobRecord] = []
    reached: int | None = None  # who stands behind it may not have been looked at in every queue
    for number, name in _all(connection, sql.QUEUES):
        if which.queue not in {"", name}:
            continue
        looked, last = _look(connection, sql.LOOK_AT_SHELF, (after, LOOKED_AT, int(phase), number))
        rows = _rows(connection, sql.BROWSE_SHELF, (after, limit, int(phase), number, which.handler, last))
        page = _page(rows, limit, last if looked == LOOKED_AT else None)
        records += page.records
        if page.after is not None:
            reached = page.after if reached is None else min(reached, page.after)
    whole = sorted((record for record in records if reached is None or record.id <= reached), key=lambda record: record.id)
    return Page(records=whole[:limit], after=whole[limit - 1].id if len(whole) > limit else reached)


def _done(connection: apsw.Connection, which: JobFilter, after: int, limit: int) -> Page:
    rows = _all(connection, past_sql.BROWSE_DONE, (after, which.queue, which.handler))
    blocks = _all(connection, block_sql.BROWSE_DONE_BLOCKS, (after, which.queue, which.handler))
    its: list[tuple[float, str, str, kept.Born, Sequence[int]]] = []
    its += [(at, handler, queue, created_at, range(first, first + jobs)) for at, handler, queue, created_at, first, jobs in blocks]
    its += [(at, handler, queue, ages, array("q", ids)) for at, handler, queue, ages, ids in rows]
    found = ((id, place) for place, [*_, ids] in enumerate(its) for id in ids if id > after)
    chosen = nsmallest(limit + 1, found)
    records = [_done_record(id, *its[place]) for id, place in chosen[:limit]]
    return Page(records=records, after=records[-1].id if len(chosen) > limit else None)


def _done_record(id: int, at: float, handler: str, queue: str, born: kept.Born, ids: Sequence[int]) -> JobRecord:
    created_at = kept.created_at(id, at, ids, born)
    return JobRecord(id=id, handler=handler, queue=queue, state=State.DONE, run=0, created_at=created_at, changed_at=at)


def _look(connection: apsw.Connection, statement: str, values: tuple[int, ...]) -> tuple[int, int]:
    """How many rows will be looked at, and the last of them."""
    [[looked, last]] = _all(connection, statement, values)
    return int(looked), int(last)


def _rows(connection: apsw.Connection, statement: str, values: tuple[int | str, ...]) -> Sequence[JobRecord]:
    return [record_of(*row) for row in _all(connection, statement, values)]


def _all(connection: apsw.Connection, statement: str, values: tuple[int | str, ...] = ()) -> list[Any]:
    return connection.execute(statement, values).fetchall()


def _page(records: Sequence[JobRecord], limit: int, reached: int | None) -> Page:
    return Page(records=records, after=records[-1].id if len(records) == limit else reached)


def record_of(
    id: int,
    handler: str,
    queue: str,
    phase: int,
    run: int,
    failures: int,
    crashes: int,
    priority: int,
    due_at: float,
    created_at: float,
    started_at: float,
    changed_at: float,
    tags: str,
    reason: str,
    error: str,
    cancel_asked_at: float | None,
    failed_runs: str = "[]",
    progress: str | None = None,
) -> JobRecord:
    """A row of `RECORD` as the contract has it, and of `FIND`, which knows more."""
    return JobRecord(
        id=id,
        handler=handler,
        queue=queue,
        state=STATE_OF[Phase(phase)],
        run=run,
        failures=failures,
        crashes=crashes,
        priority=priority,
        due_at=due_at,
        created_at=created_at,
        started_at=started_at,
        changed_at=changed_at,
        tags=msgspec.json.decode(tags, type=tuple[str, ...]),
        reason=reason,
        error=error,
        cancel_asked_at=cancel_asked_at,
        failed_runs=msgspec.json.decode(failed_runs, type=tuple[FailedRun, ...]),
        progress=None if progress is None else msgspec.json.decode(progress, type=Progress),
    )
