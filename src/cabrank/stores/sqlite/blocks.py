"""Blocks in the file: jobs that one turn stored as running are one row, as long as nothing is to be said of one of them alone.

Then they are parted: each becomes a row of `job`, as it would have been from the start. Whoever needs one of them alone parts its block
first, whichever process holds it, so a holder's memory of its blocks may be out of date, and the file decides. Nothing ever becomes a
block again: a job goes from `block` to `job`, and from either to what is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate, chain
from typing import Any

import apsw
import msgspec

from cabrank.block import payloads_of
from cabrank.job import Job, Settlement
from cabrank.states import Cause
from cabrank.stores.contract import Returned
from cabrank.stores.sqlite import block_statements as sql
from cabrank.stores.sqlite import packed
from cabrank.stores.sqlite import statements as job_sql
from cabrank.stores.sqlite.schema import Phase

ROWS_BEHIND_A_PARTED = 16  # blocks that are stored as rows after one whose jobs ended apart: the next may do so too


class Own(msgspec.Struct, frozen=True):
    """One that this holder stored. `handler` and `queue` are numbers."""

    first: int
    jobs: int
    handler: int
    queue: int

    @property
    def ids(self) -> range:
        """The ids of its jobs."""
        return range(self.first, self.first + self.jobs)


class Stored(msgspec.Struct, array_like=True, frozen=True):
    """A row, as it is read when it is parted. `sizes` are the bytes of each payload, as JSON."""

    first: int
    holder: int
    turn: int
    queue: int
    handler: int
    priority: int
    at: float
    deadline_at: float
    sizes: str
    payloads: bytes

    def cut(self) -> list[bytes]:
        """The payload of each job."""
        start, cut = 0, list[bytes]()
        for size in msgspec.json.decode(self.sizes, type=list[int]):
            cut.append(self.payloads[start : start + size])
            start += size
        return cut


class Blocks:
    """Those of one holder, as its writer remembers them. What a transaction did to them counts when it was committed."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.holder = 0
        """Whose they are."""
        self.turn = 0
        """The number of the turn that goes on."""
        self._own: dict[int, Own] = {}
        self._came: list[Own] = []
        self._went: list[int] = []
        self._rows = 0  # blocks that are to be stored as rows

    def commit(self) -> None:
        """What was done is done."""
        for first in self._went:
            self._own.pop(first, None)
        for own in self._came:
            self._own[own.first] = own
        self.roll_back()

    def roll_back(self) -> None:
        """What was done is not."""
        self._came, self._went = [], []

    def forget(self) -> None:
        """Trust nothing that is remembered."""
        self._own.clear()

    @property
    def apart(self) -> bool:
        """Whether the next jobs that start at once are to be rows of their own."""
        return self._rows > 0

    def came_apart(self) -> None:
        """Some were stored as rows of their own."""
        self._rows -= self._rows > 0

    def begin(self, holder: int, turn: int) -> None:
        """A turn begins. What is remembered is of the same holder."""
        if holder != self.holder:
            self._own.clear()
        self.holder, self.turn = holder, turn

    def insert(self, jobs: Sequence[Job], first: Job, *, queue: int, handler: int, now: float) -> None:
        """Store jobs, alike but for their payloads and ids in a row, as running."""
        row = (first.id, len(jobs), self.holder, self.turn, queue, handler, first.priority, now, first.deadline_at)
        self._connection.execute(sql.INSERT_BLOCK, (*row, *stored(jobs)))
        if not self._connection.changes():
            raise apsw.ConstraintError(f"some of the {len(jobs)} jobs from {first.id} on are in the file already")
        self.came(Own(first.id, len(jobs), handler, queue))

    def came(self, own: Own) -> None:
        """This one was stored."""
        self._came.append(own)

    def went(self, gone: Collection[Own]) -> None:
        """These have ended."""
        self._went += [own.first for own in gone]

    def whole(self, returned: Returned, settlements: Sequence[Settlement]) -> list[Own]:
        """Those that end with these first runs, all of their jobs."""
        ids = list(returned.get(1, ()))
        if settlements:
            ids += [one.id for one in settlements if one.run == 1 and one.cause is Cause.RETURNED]
        left = set(ids)
        if len(left) < len(ids):  # one is told twice: for rows that is sorted out
            return []
        return [own for own in map(self._own.__getitem__, self._own.keys() & left) if left.issuperset(own.ids)]

    def part_touched(self, ids: Collection[int]) -> None:
        """Part those in which some of these jobs are, as far as they are remembered."""
        wanted = set(ids)
        for own in self._own.values():
            if own.first not in self._went and not wanted.isdisjoint(own.ids):
                self._rows = ROWS_BEHIND_A_PARTED
                part_of(self._connection, own.first)
                self._went.append(own.first)


def stored(jobs: Sequence[Job]) -> tuple[str, bytes]:
    """Their payloads as a row has them: the bytes of each, as JSON, and all of them behind each other."""
    payloads = payloads_of(jobs)
    return packed.rows(list(map(len, payloads))), b"".join(payloads)


def cut(jobs: Sequence[Job]) -> tuple[str, bytes]:
    """As `stored`, but of each where it begins, from 1 on, and its bytes."""
    payloads = payloads_of(jobs)
    sizes = list(map(len, payloads))
    return packed.rows(list(zip(accumulate(sizes, initial=1), sizes, strict=False))), b"".join(payloads)


def part_of(connection: apsw.Connection, id: int) -> None:
    """Part the block in which this job is, if it is in one."""
    _part(connection, connection.execute(sql.BLOCK_OF, (id,)).fetchall())


def part_all(connection: apsw.Connection, holder: int) -> None:
    """Part all blocks of a holder."""
    _part(connection, connection.execute(sql.BLOCKS_HELD, (holder,)).fetchall())


def all_in(connection: apsw.Connection) -> Iterator[Stored]:
    """All blocks there are, by id."""
    return (Stored(*row) for row in connection.execute(sql.BLOCKS))


def _part(connection: apsw.Connection, rows: list[Any]) -> None:
    for block in (Stored(*row) for row in rows):
        connection.execute(
            job_sql.INSERT,
            (
                block.first - 1,
                int(Phase.RUNNING),
                block.queue,
                block.handler,
                block.priority,
                block.at,
                block.deadline_at,
                1,
                block.holder,
                apsw.carray(tuple(block.cut())),
                block.at,
                block.at,
            ),
        )
        connection.execute(sql.FORGET_BLOCK, (block.first,))
        connection.execute(sql.KEEP_TURN, (block.turn, block.holder))


def ended_in(whole: Sequence[Own]) -> set[int]:
    """The ids of all jobs of these."""
    return set(chain.from_iterable(own.ids for own in whole))
