"""Ready jobs out of the file, written as running: two statements and two values, however many jobs."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import apsw
import msgspec

from cabrank.job import Job, Lease
from cabrank.stores.contract import Want
from cabrank.stores.sqlite.counts import Opening
from cabrank.stores.sqlite.names import Names
from cabrank.stores.sqlite.schema import Phase

_COLUMNS = "id, run, failures, crashes, handler, priority, due_at, deadline_at, payload"
_Row = tuple[int, int, int, int, int, int, float, float, msgspec.Raw]
_Fetched = tuple[int, int, int, int, int, int, float, float, bytes]
_decode = msgspec.json.Decoder(list[_Row]).decode


def promote(connection: apsw.Connection, opening: Opening, now: float) -> None:
    """Make those jobs ready whose time has come."""
    if opening.later_at is None or opening.later_at > now:
        return
    connection.execute(f"update job set phase = {Phase.READY:d} where phase = {Phase.LATER:d} and due_at <= ?", (now,))
    opening.later_at = connection.execute(f"select min(due_at) from job where phase = {Phase.LATER:d}").get
    for waiting in opening.queues.values():
        waiting.ready = waiting.ready or waiting.jobs > 0


class Claimer:
    """Claims for one holder what its handlers can run."""

    def __init__(self, connection: apsw.Connection, *, handlers: Names, known: Sequence[str]) -> None:
        self._connection = connection
        self._handlers = handlers
        ready = (
            f"from job where phase = {Phase.READY:d} and queue = ?1 and handler in ({','.join(str(handlers.number(name)) for name in known)}) "
            "order by priority, due_at, id limit ?2"
        )
        row = " || ',' || ".join(_COLUMNS.split(", ")[:-1])
        self._packed = f"select cast('[' || group_concat('[' || {row} || ',' || cast(payload as text) || ']') || ']' as blob) from (select {_COLUMNS} {ready})"
        self._plain = f"select {_COLUMNS} {ready}"

    def claim(self, queue: str, number: int, want: Want, opening: Opening, holder: int) -> list[Lease]:
        """Lease ready jobs of one queue, by priority and then by the moment they became ready, within `want`."""
        rows = _within(self._rows(number, want.jobs), want)
        waiting = opening.queue(number)
        if not rows:
            return []
        self._connection.execute(
            f"update job set phase = {Phase.RUNNING:d}, run = run + 1, holder = ? where id in carray(?)",
            (holder, apsw.carray(array("q", [row[0] for row in rows]))),
        )
        waiting.add(-len(rows), -sum(len(row[8]) for row in rows))
        return [self._lease(queue, row) for row in rows]

    def _rows(self, queue: int, most: int) -> list[_Fetched]:
        packed: Any = self._connection.execute(self._packed, (queue, most)).get
        if packed is None:
            return []
        try:
            return [(*row[:8], bytes(row[8])) for row in _decode(packed)]
        except msgspec.DecodeError:  # one payload is not JSON: then it is read row by row, and only that job suffers
            rows: list[Any] = self._connection.execute(self._plain, (queue, most)).fetchall()
            return rows

    def _lease(self, queue: str, row: _Fetched) -> Lease:
        id, run, failures, crashes, handler, priority, due_at, deadline_at, payload = row
        job = Job(
            id=id,
            handler=self._handlers.name(handler),
            queue=queue,
            payload=payload,
            priority=priority,
            due_at=due_at,
            deadline_at=deadline_at,
        )
        return Lease(job, run + 1, failures, crashes)


def _within(rows: Sequence[_Fetched], want: Want) -> Sequence[_Fetched]:
    """As many rows, from the first, as are wanted: by bytes, and jobs that were there at a crash only among those that start at once."""
    size = 0
    for position, row in enumerate(rows):
        size += len(row[8])
        if position and (size > want.bytes or (row[3] and position >= want.idle)):
            return rows[:position]
    return rows if not rows or not rows[0][3] or want.idle else []
