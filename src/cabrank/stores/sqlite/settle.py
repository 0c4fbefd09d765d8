"""Settlements in the file: fenced by (id, run, running), a few statements for all of them together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet

import apsw
import msgspec

from cabrank.job import Progress, Settlement, parted
from cabrank.states import CRASHES, FAILURES, Cause, State, after
from cabrank.stores.contract import Returned
from cabrank.stores.sqlite import block_statements as block_sql
from cabrank.stores.sqlite import kept, packed, past
from cabrank.stores.sqlite import statements as sql
from cabrank.stores.sqlite.blocks import Blocks, ended_in, part_of
from cabrank.stores.sqlite.counts import Opening
from cabrank.stores.sqlite.schema import SHELF_OF, Phase


class LeaseLost(Exception):
    """A settlement changed nothing, so the transaction is void."""


class _Return(msgspec.Struct, array_like=True):
    """A job that waits again, as the statement reads it."""

    id: int
    run: int
    due_at: float
    phase: int
    failed: int
    crashed: int


class _Shelve(msgspec.Struct, array_like=True):
    """A job that waits for a person, or is over without a result."""

    id: int
    run: int
    phase: int
    failed: int
    crashed: int


class _Note(msgspec.Struct, array_like=True):
    """Why a job is where it is."""

    id: int
    reason: str
    error: str


class Ended(msgspec.Struct, frozen=True):
    """What a turn records: settlements, apart from them the runs that returned None, and how far those are that go on."""

    settlements: Sequence[Settlement]
    returned: Returned
    progress: Sequence[Progress] = ()

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.settlements or self.returned or self.progress)

    def without(self, ended: AbstractSet[int]) -> Ended:
        """What is left when the first runs of these jobs have ended."""
        first = [id for id in self.returned.get(1, ()) if id not in ended]
        returned = {run: ids for run, ids in self.returned.items() if run != 1}
        settlements = [one for one in self.settlements if one.run != 1 or one.cause is not Cause.RETURNED or one.id not in ended]
        return Ended(settlements, {1: first, **returned} if first else returned, self.progress)

    @property
    def fences(self) -> list[tuple[int, int]]:
        """The (id, run) of each."""
        fences = [(id, run) for run, ids in self.returned.items() for id in ids]
        return fences + [(settlement.id, settlement.run) for settlement in self.settlements]


def sort_out(connection: apsw.Connection, ended: Ended) -> tuple[Ended, list[tuple[int, int]]]:
    """What counts, each run once, and the (id, run) of those that are not the running ones any more."""
    fences = dict.fromkeys(ended.fences)
    held = connection.execute(sql.STILL_RUNNING, (packed.ids([id for id, _ in fences]),)).get
    running = frozenset(msgspec.json.decode(str(held), type=list[tuple[int, int]]))
    settlements = {(settlement.id, settlement.run): settlement for settlement in reversed(ended.settlements)}
    returned: dict[int, list[int]] = {}
    for id, run in {(id, run) for run, ids in ended.returned.items() for id in ids} & running:
        returned.setdefault(run, []).append(id)
        settlements.pop((id, run), None)
    standing = [settlement for fence, settlement in settlements.items() if fence in running]
    return Ended(standing, returned, ended.progress), [fence for fence in fences if fence not in running]


def record(
    connection: apsw.Connection, ended: Ended, opening: Opening, keeping: kept.Keeping, blocks: Blocks, now: float
) -> list[tuple[int, int]]:
    """Record all that ended. What comes back are the (id, run) of those that would wait again but had been cancelled.

    Raises:
        LeaseLost: one of them changed nothing; roll back.
    """
    ended = _end_blocks(connection, ended, keeping, blocks, now)
    ids = [id for id, _ in ended.fences] if opening.cancelling or opening.progress or opening.lines is not None else []
    if opening.lines is not None and ids:
        opening.lines.free(ids)
    cancelling = _cancelling(connection, ids) if opening.cancelling and ids else frozenset[int]()
    kept_results, others = parted(ended.settlements)
    if kept_results or ended.returned:
        kept.add(connection, kept_results, ended.returned, keeping, now)
        _finish(connection, kept_results, ended.returned)
    waits = [s for s in others if after(State.RUNNING, s.cause) is State.WAITING]
    back = [s for s in waits if s.id not in cancelling]
    shelved = [s for s in others if after(State.RUNNING, s.cause) is not State.WAITING or s.id in cancelling]
    if back:
        _put_back(connection, back, opening, now)
    if shelved:
        _shelve(connection, shelved)
    past.fail(connection, others, now)
    _annotate(connection, [*(s for s in back if s.reason), *shelved], now)
    if opening.progress and ids:
        past.forget_progress(connection, ids)
    if ended.progress:
        past.tell(connection, ended.progress)
    if not cancelling:
        return []
    connection.execute(sql.FORGET_CANCELLING, (packed.ids(cancelling),))
    return [(s.id, s.run) for s in waits if s.id in cancelling]


def _end_blocks(connection: apsw.Connection, ended: Ended, keeping: kept.Keeping, blocks: Blocks, now: float) -> Ended:
    """Record those blocks that end as a whole. What comes back is the rest: all of it is of rows."""
    whole = blocks.whole(ended.returned, ended.settlements)
    if whole:
        rows = kept.rows_of(whole, ended.settlements, keeping, now)
        connection.execute(block_sql.KEEP_BLOCKS, (now, blocks.holder, rows))
        _all_changed(connection, len(whole))
        connection.execute(block_sql.FINISH_BLOCKS, (rows,))
        blocks.went(whole)
        ended = ended.without(ended_in(whole))
    if ended:
        blocks.part_touched([*(id for id, _ in ended.fences), *(progress.id for progress in ended.progress)])
    for progress in ended.progress:  # of a block that is not remembered any more it would be lost without a word
        part_of(connection, progress.id)
    return ended


def _finish(connection: apsw.Connection, with_results: Sequence[Settlement], returned: Returned) -> None:
    ids_of = {run: list(ids) for run, ids in returned.items()}
    for settlement in with_results:
        ids_of.setdefault(settlement.run, []).append(settlement.id)
    for run, ids in ids_of.items():
        connection.execute(sql.FINISH, (packed.ids(ids), run))
        _all_changed(connection, len(ids))
        if run > 1:
            connection.execute(sql.FORGET_NOTES, (packed.ids(ids),))
            past.forget(connection, ids)


def purge(connection: apsw.Connection, ids: Collection[int]) -> int:
    """Forget jobs that ended without returning, or are held; how many were."""
    connection.execute(sql.PURGE, (packed.ids(ids),))
    purged = connection.changes()
    connection.execute(sql.FORGET_PURGED_NOTES, (packed.ids(ids),))
    past.forget_purged(connection, ids)
    return purged


def _put_back(connection: apsw.Connection, back: Sequence[Settlement], opening: Opening, now: float) -> None:
    rows = [
        _Return(
            s.id,
            s.run,
            now + s.after_s,
            Phase.LATER if s.after_s > 0 else Phase.READY,
            s.cause in FAILURES,
            s.cause in CRASHES,
        )
        for s in back
    ]
    connection.execute(
        sql.PUT_BACK,
        (packed.rows(rows), now),
    )
    _all_changed(connection, len(back))
    counted = connection.execute(
        sql.SIZES,
        (packed.ids([s.id for s in back]),),
    ).get
    for queue, jobs, size in msgspec.json.decode(str(counted), type=list[tuple[int, int, int]]):
        opening.queue(queue).add(jobs, size)
        opening.queue(queue).ready = True
    opening.aroused = True
    if opening.lines is not None:
        opening.lines.come_back([s.id for s in back])
    later = min((row.due_at for row in rows if row.phase == Phase.LATER), default=None)
    if later is not None:
        opening.due(later)


def _shelve(connection: apsw.Connection, shelved: Sequence[Settlement]) -> None:
    """Those that would wait again are here because they were cancelled."""
    rows = [
        _Shelve(
            s.id,
            s.run,
            SHELF_OF.get(after(State.RUNNING, s.cause), Phase.CANCELLED),
            s.cause in FAILURES,
            s.cause in CRASHES,
        )
        for s in shelved
    ]
    connection.execute(
        sql.SHELVE,
        (packed.rows(rows),),
    )
    _all_changed(connection, len(shelved))


def _annotate(connection: apsw.Connection, settlements: Sequence[Settlement], now: float) -> None:
    if settlements:
        connection.execute(
            sql.ANNOTATE,
            (now, packed.rows([_Note(s.id, s.reason, "" if s.cause in past.FAILED else s.error) for s in settlements])),
        )


def _cancelling(connection: apsw.Connection, ids: Sequence[int]) -> frozenset[int]:
    found = connection.execute(sql.CANCELLING, (packed.ids(ids),)).get
    return frozenset(msgspec.json.decode(str(found), type=list[int]))


def _all_changed(connection: apsw.Connection, expected: int) -> None:
    if connection.changes() != expected:
        raise LeaseLost
