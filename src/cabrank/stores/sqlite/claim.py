"""Ready jobs out of the file, written as running: two statements and two values, however many jobs."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import apsw
import msgspec

from cabrank.job import Job, Lease
from cabrank.stores.contract import SUSPECT_CRASHES, Want
from cabrank.stores.sqlite import statements as sql
from cabrank.stores.sqlite.counts import Opening
from cabrank.stores.sqlite.names import Names

_Row = tuple[int, int, int, int, int, int, float, float, int, msgspec.Raw]
_Fetched = tuple[int, int, int, int, int, int, float, float, int, bytes]  # `COLUMNS`
_decode = msgspec.json.Decoder(list[_Row]).decode


def promote(connection: apsw.Connection, opening: Opening, now: float) -> None:
    """Make those jobs ready whose time has come."""
    if opening.later_at is None or opening.later_at > now:
        return
    connection.execute(sql.PROMOTE, (now,))
    opening.aroused = True
    opening.later_at = connection.execute(sql.NEXT_DUE).get
    for waiting in opening.queues.values():
        waiting.ready = waiting.ready or waiting.jobs > 0


class Claimer:
    """Claims for one holder what its handlers can run."""

    def __init__(self, connection: apsw.Connection, *, handlers: Names, known: Sequence[str]) -> None:
        self._connection = connection
        self._handlers = handlers
        numbers = ",".join(str(handlers.number(name)) for name in known)
        self._packed = sql.ready_packed(numbers)
        self._plain = sql.ready(numbers)

    def claim(self, queue: str, number: int, want: Want, opening: Opening, holder: int, taken: Sequence[Lease]) -> list[Lease]:
        """Lease ready jobs of one queue, by priority and then by the moment they became ready, within `want`.

        `taken` came out of this queue in this turn already.
        """
        rows = self._rows(number, want.jobs - len(taken))
        size = sum(len(lease.job.payload) for lease in taken)
        for position, row in enumerate(rows):
            size += row[8]
            if not want.takes(len(taken) + position, size, row[3]):
                opening.suspect = opening.suspect or row[3] >= SUSPECT_CRASHES
                rows = rows[:position]
                break
        return self._take(queue, number, rows, opening, holder)

    def claim_suspect(self, queue: str, number: int, opening: Opening, holder: int) -> list[Lease]:
        """Lease the job that is next, if it is a suspect."""
        rows = [row for row in self._rows(number, 1) if row[3] >= SUSPECT_CRASHES]
        return self._take(queue, number, rows, opening, holder)

    def _take(self, queue: str, number: int, rows: Sequence[_Fetched], opening: Opening, holder: int) -> list[Lease]:
        if not rows:
            return []
        self._connection.execute(
            sql.CLAIM,
            (holder, apsw.carray(array("q", [row[0] for row in rows]))),
        )
        opening.queue(number).add(-len(rows), -sum(row[8] for row in rows))
        return [self._lease(queue, row) for row in rows]

    def _rows(self, queue: int, most: int) -> list[_Fetched]:
        packed: Any = self._connection.execute(self._packed, (queue, most)).get
        if packed is None:
            return []
        try:
            return [(*row[:9], bytes(row[9])) for row in _decode(packed)]
        except msgspec.DecodeError:  # one payload is not JSON: then it is read row by row, and only that job suffers
            rows: list[Any] = self._connection.execute(self._plain, (queue, most)).fetchall()
            return rows

    def _lease(self, queue: str, row: _Fetched) -> Lease:
        id, run, failures, crashes, handler, priority, due_at, deadline_at, _, payload = row
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
