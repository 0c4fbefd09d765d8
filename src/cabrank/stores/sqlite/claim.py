"""Ready jobs out of the file, written as running: two statements and two values, however many jobs."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import apsw
import msgspec

from cabrank.job import Job, Lease
from cabrank.stores.contract import SUSPECT_CRASHES, Terms, Want
from cabrank.stores.sqlite import packed
from cabrank.stores.sqlite import statements as sql
from cabrank.stores.sqlite.counts import Opening
from cabrank.stores.sqlite.lines import Head, Lines
from cabrank.stores.sqlite.names import Names

_Row = tuple[int, int, int, int, int, int, float, float, int, msgspec.Raw]
_Fetched = tuple[int, int, int, int, int, int, float, float, int, bytes]  # `COLUMNS`
_decode = msgspec.json.Decoder(list[_Row]).decode


def promote(connection: apsw.Connection, opening: Opening, lines: Lines, now: float) -> None:
    """Make those jobs ready whose time has come."""
    if opening.later_at is None or opening.later_at > now:
        return
    lines.changed = True  # it is worth a commit even if nobody can take them now: else each who finds them due again would tell all
    if opening.lines is not None:
        opening.lines.promote(now)
    connection.execute(sql.PROMOTE, (now,))
    opening.aroused = True
    opening.later_at = connection.execute(sql.NEXT_DUE).get
    for waiting in opening.queues.values():
        waiting.ready = waiting.ready or waiting.jobs > 0


class Claimer:
    """Claims for one holder what its handlers can run."""

    def __init__(self, connection: apsw.Connection, *, handlers: Names, terms: Terms, lines: Lines) -> None:
        self._connection = connection
        self._handlers = handlers
        self._lines = lines
        self._limited = frozenset(handlers.number(name) for name in terms.limits)
        known = ",".join(str(handlers.number(name)) for name in sorted(terms.handlers))
        aging_s = terms.settings.aging_s
        self._ready = sql.ready(known) if aging_s is None else sql.ready_aged(known, aging_s)
        self._order = _by_priority if aging_s is None else partial(_by_age, aging_s)

    def claim(self, queue: str, number: int, want: Want, opening: Opening, holder: int, taken: tuple[int, int]) -> list[Lease]:
        """Lease ready jobs of one queue, by priority and then by the moment they became ready, within `want`.

        `taken` is how many came out of this queue in this turn already, with how many bytes.
        """
        begun, size = taken
        rows = self._free_rows(number, want.jobs - begun, opening)
        if opening.queue(number).in_line:
            return self._claim_in_turns(queue, number, want, opening, holder, taken, rows)
        for position, row in enumerate(rows):
            size += row[8]
            if not want.takes(begun + position, size, row[3]):
                opening.suspect = opening.suspect or row[3] >= SUSPECT_CRASHES
                rows = rows[:position]
                break
        return self._take(queue, number, rows, opening, holder)

    def is_suspect_next(self, number: int, opening: Opening) -> bool:
        """Whether the job that a claim of this queue would lease first is a suspect."""
        return bool(self._next_suspect(number, opening))

    def claim_suspect(self, queue: str, number: int, opening: Opening, holder: int) -> list[Lease]:
        """Lease the job that is next, if it is a suspect."""
        rows: list[_Fetched] = []
        for one in self._next_suspect(number, opening):
            if isinstance(one, Head) and opening.lines is not None:
                opening.lines.leave([one])
                rows = self._rows(sql.BY_ID, (packed.ids([one.id]),))
            elif not isinstance(one, Head):
                rows = [one]
        return self._take(queue, number, rows, opening, holder)

    def _next_suspect(self, number: int, opening: Opening) -> Sequence[_Fetched | Head]:
        """The suspect that is next, if one is."""
        rows = [row for row in self._free_rows(number, 1, opening) if row[3] >= SUSPECT_CRASHES]
        if rows or not opening.queue(number).in_line or opening.lines is None:
            return rows
        return [head for head in opening.lines.choose(number, 1) if head.crashes >= SUSPECT_CRASHES][:1]

    def _claim_in_turns(
        self, queue: str, number: int, want: Want, opening: Opening, holder: int, taken: tuple[int, int], free: Sequence[_Fetched]
    ) -> list[Lease]:
        """As `claim`, of jobs without a limit, which are `free`, and of those in lines. Whichever is next goes first.

        A job in line is leased only to start at once: what its limit lets start now must not wait for a worker.
        """
        assert opening.lines is not None  # noqa: S101 -- for the type checker
        begun, size = taken
        heads = opening.lines.choose(number, max(1, want.idle - begun))
        chosen: list[_Fetched | Head] = []
        candidates: Iterator[_Fetched | Head] = heapq.merge(free, heads, key=self._order)
        for one in candidates:
            crashes, its = (one.crashes, one.size) if isinstance(one, Head) else (one[3], one[8])
            size += its
            position = begun + len(chosen)
            if position >= (want.idle if isinstance(one, Head) else want.jobs) or not want.takes(position, size, crashes):
                opening.suspect = opening.suspect or crashes >= SUSPECT_CRASHES
                break
            chosen.append(one)
        started = [one for one in chosen if isinstance(one, Head)]
        fetched = self._rows(sql.BY_ID, (packed.ids([head.id for head in started]),)) if started else []
        opening.lines.leave(started)
        rows = {row[0]: row for row in fetched}
        return self._take(queue, number, [rows[one.id] if isinstance(one, Head) else one for one in chosen], opening, holder)

    def _free_rows(self, number: int, most: int, opening: Opening) -> list[_Fetched]:
        """The next jobs without a limit. Those whose handler has got one since they came are put into its line."""
        if not opening.queue(number).ready:
            return []
        rows = self._rows(self._ready, (number, most))
        while self._limited and (strays := [row for row in rows if row[4] in self._limited]):
            for handler in {row[4] for row in strays}:
                self._lines.take_in(number, handler, [row[0] for row in strays if row[4] == handler])
            opening.lines, opening.queue(number).in_line = self._lines, True
            rows = self._rows(self._ready, (number, most))
        return rows

    def _take(self, queue: str, number: int, rows: Sequence[_Fetched], opening: Opening, holder: int) -> list[Lease]:
        if not rows:
            return []
        self._connection.execute(
            sql.CLAIM,
            (holder, opening.now, packed.ids([row[0] for row in rows])),
        )
        opening.queue(number).add(-len(rows), -sum(row[8] for row in rows))
        return [self._lease(queue, row) for row in rows]

    def _rows(self, statement: str, values: tuple[Any, ...]) -> list[_Fetched]:
        packed: Any = self._connection.execute(sql.packed(statement), values).get
        if packed is None:
            return []
        try:
            return [(*row[:9], bytes(row[9])) for row in _decode(packed)]
        except msgspec.DecodeError:  # one payload is not JSON: then it is read row by row, and only that job suffers
            rows: list[Any] = self._connection.execute(statement, values).fetchall()
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


def _by_priority(one: _Fetched | Head) -> tuple[float, float, int]:
    return (one.priority, one.due_at, one.id) if isinstance(one, Head) else (one[5], one[6], one[0])


def _by_age(aging_s: float, one: _Fetched | Head) -> tuple[float, float, int]:
    priority, due_at, id = _by_priority(one)
    return due_at + priority * aging_s, 0.0, id
