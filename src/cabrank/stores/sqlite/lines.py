"""The lines of limited handlers: for each key of each a line of ready jobs, and what its limit allows now.

Whether a line is looked at is written down when it changes, so a claim costs what the lines cost from which it takes, however many
jobs wait and however many lines are closed. How many jobs run is counted in the rows that run, whatever way they came there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import zip_longest
from math import ceil
from typing import Any

import apsw
import msgspec

from cabrank.job import Job
from cabrank.policy import Limit
from cabrank.stores.contract import Terms
from cabrank.stores.sqlite import limit_statements as sql
from cabrank.stores.sqlite import packed
from cabrank.stores.sqlite.names import Names
from cabrank.stores.sqlite.schema import Phase

LONGEST_WALK = 1_000  # lines that a claim looks at without taking anything, before it leaves the rest to the next turn
PLACES = 1 << 20  # places that a turn may give out: more than a turn has rows
OLD_LINES = 1_000  # lines that are forgotten at once


class Line(msgspec.Struct):
    """One allowance as this turn sees it. `allowed`: how many of its jobs may start now."""

    id: int
    place: int
    full_at: float
    running: int
    limit: Limit | None
    allowed: int = 0
    heads: Sequence[Head] = ()
    taken: int = 0
    """Of `heads`, whose last one may be more than was asked for."""


class Head(msgspec.Struct):
    """A job that is next in its line."""

    line: Line
    priority: int
    due_at: float
    id: int
    crashes: int
    size: int


_Key = tuple[int, int, str]  # queue, handler, key
_HeadRow = tuple[int, int, float, int, int, int]  # line, priority, due, id, crashes, bytes


class Lines:
    """What one connection does with them, within its transactions. `now` is a moment of the wall clock; rates go by `monotonic`."""

    def __init__(
        self, connection: apsw.Connection, *, queues: Names, handlers: Names, terms: Terms, monotonic: Callable[[], float]
    ) -> None:
        self._connection = connection
        self._queues = queues
        self._handlers = handlers
        self._terms = terms
        self._monotonic = monotonic
        self._now = monotonic()
        self._known: dict[int, Limit | None] = {}
        self._open: dict[int, dict[int, None]] = {}
        self._chosen: list[Line] = []
        self._place: int | None = None
        self.changed = False
        """Whether something was written that is worth a commit by itself."""
        self._freed = False
        self._timed = False
        self.left_off = False
        """Whether the next turn would find more in lines that this one did not come to."""

    def begin(self) -> None:
        """A turn begins."""
        self._open, self._place, self.changed, self.left_off = {}, None, False, False
        self._freed = self._timed = False
        self._now = self._monotonic()

    # ---------------------------------------------------------------------------------------------------- who has limits

    def declare(self, clock: str) -> None:
        """Write down the limits of this holder's handlers. `clock` tells which run of the machine the monotonic clock belongs to."""
        declared = self._declared()
        for name in sorted(self._terms.handlers):
            limit = self._terms.limits.get(name)
            figures = (None, None, None) if limit is None else (limit.running, limit.per_s, limit.capacity if limit.per_s else None)
            number = self._handlers.number(name)
            if declared.get(number, (None, None, None)) != figures:
                self._connection.execute(sql.DECLARE, (number, *figures))
                declared[number] = figures
        if self._connection.execute(sql.CLOCK).get != clock:
            for number, (_, per_s, burst) in declared.items():
                self._connection.execute(sql.FORGET_CLOCK, (number, self._now + burst / per_s if per_s else 0.0))
            self._connection.execute(sql.SET_CLOCK, (clock,))
        self.refresh()

    def refresh(self) -> None:
        """See which of the known handlers have lines: those that another process gave a limit do too."""
        limits = {self._handlers.number(name): self._terms.limits.get(name) for name in self._terms.handlers}
        declared = self._declared()
        self._known = {number: limit for number, limit in limits.items() if limit is not None or number in declared}

    def _declared(self) -> dict[int, Any]:
        return {number: tuple(figures) for number, *figures in self._connection.execute(sql.DECLARED)}

    # ------------------------------------------------------------------------------------------------- what becomes ready

    def insert(self, jobs: Sequence[Job], now: float) -> float | None:
        """Put new jobs into their lines. What comes back is when the first of those is due that are due later."""
        keys = [(self._queues.number(job.queue), self._handlers.number(job.handler), job.limit_key or "") for job in jobs]
        ready = dict.fromkeys(keys, False)
        for key, job in zip(keys, jobs, strict=True):
            ready[key] = ready[key] or job.due_at <= now
        lines = self._join(ready)
        rows: list[tuple[object, ...]] = []
        at = 1
        for key, job in zip(keys, jobs, strict=True):
            phase, size = int(Phase.LATER if job.due_at > now else Phase.IN_LINE), len(job.payload)
            rows.append((job.id, phase, *key[:2], job.priority, max(job.due_at, now), job.deadline_at, lines[key], at, size))
            at += size
        self._connection.execute(sql.INSERT, (packed.rows(rows), b"".join([job.payload for job in jobs]), now))
        return min((job.due_at for job in jobs if job.due_at > now), default=None)

    def take_in(self, queue: int, handler: int, ids: Collection[int]) -> None:
        """Put ready jobs into the line of the handler without a key: they came before it had a limit, or from who does not know it."""
        self.changed = True
        key = queue, handler, ""
        self._connection.execute(sql.TAKE_IN, (self._join({key: True})[key], packed.ids(ids)))

    def _join(self, ready: Mapping[_Key, bool]) -> dict[_Key, int]:
        """The lines of these keys; those that have ready jobs now are looked at."""
        rows = packed.rows([(*key, is_ready) for key, is_ready in ready.items()])
        self._connection.execute(sql.JOIN, (self._next_place(len(ready)), rows))
        found = self._connection.execute(sql.LINES_OF, (rows,)).get
        for (queue, handler, _), is_ready in ready.items():
            if is_ready and handler in self._known:
                self._open.setdefault(queue, {})[handler] = None
        return {(queue, handler, key): line for line, queue, handler, key in msgspec.json.decode(str(found))}

    def free(self, ids: Collection[int]) -> None:
        """These jobs are about to leave running: others of their lines may run."""
        self._connection.execute(sql.FREE, (packed.ids(ids),))
        self._freed = self._freed or self._connection.changes() > 0

    def come_back(self, ids: Collection[int]) -> None:
        """These jobs wait again."""
        self._connection.execute(sql.COME_BACK, (self._next_place(1), packed.ids(ids)))

    def promote(self, now: float) -> None:
        """The jobs that are due at `now` are about to become ready."""
        self._connection.execute(sql.PROMOTE, (self._next_place(1), now))

    def reopen(self, id: int) -> None:
        """A job waits again because a person said so."""
        self._connection.execute(sql.REOPEN, (id,))

    # ------------------------------------------------------------------------------------------------------------- claims

    def look(self) -> Collection[int]:
        """The queues that have lines from which this holder may take."""
        handlers = packed.rows(list(self._known))
        self._connection.execute(sql.OPEN_DUE, (handlers, self._now))
        found = self._connection.execute(sql.OPEN_HANDLERS, (handlers,)).get
        for handler, *queues in msgspec.json.decode(str(found), type=list[tuple[int, int, int]]):
            for queue in queues:
                self._open.setdefault(queue, {})[handler] = None
        return self._open

    def choose(self, queue: int, most: int) -> list[Head]:
        """The jobs that are next: the first of each line, the line first that was served the longest ago, then the second of each.

        No more of a line than its limit allows, and no more than `most` in all. Behind it, `leave` says what was taken.
        """
        self._chosen = lines = self._allowed(queue, most)
        depth, wanting = 0, lines
        while wanting and (missing := most - sum(min(depth, len(line.heads), line.allowed) for line in lines)) > 0:
            depth += ceil(missing / len(wanting))
            self._fetch(wanting, depth)
            wanting = [line for line in wanting if len(line.heads) > depth and line.allowed > depth]
        rounds = zip_longest(*(line.heads[: line.allowed] for line in lines))
        return [head for heads in rounds for head in heads if head is not None][:most]

    def leave(self, taken: Sequence[Head]) -> None:
        """Write down which of the chosen were taken, and when their lines are looked at again."""
        served: dict[int, Line] = {}
        for head in taken:
            head.line.taken += 1
            served.pop(head.line.id, None)
            served[head.line.id] = head.line
        for place, line in enumerate(served.values(), self._next_place(len(served)) if served else 0):
            line.place = place
        self._write([line for line in self._chosen if line.taken or not line.heads])

    def next_open_s(self) -> float | None:
        """How long until a line opens because its rate allows a start."""
        opens_at: Any = self._connection.execute(sql.NEXT_OPEN, (packed.rows(list(self._known)),)).get
        return 0.0 if self.left_off else None if opens_at is None else max(0.0, opens_at - self._now)

    def left_for_others(self, *, spare: bool) -> bool:
        """Whether other holders should look at the lines. `spare`: this one can still take more, so it looks again by itself."""
        if not spare and self._timed:
            return True
        self._open = {}
        return self._freed and bool(self.look())

    def _allowed(self, queue: int, most: int) -> list[Line]:
        """The open lines that were served the longest ago, without those that turn out to be closed."""
        walked = 0
        while True:
            found = [line for handler in self._open.get(queue, ()) for line in self._open_lines(queue, handler, most)]
            found = sorted(found, key=lambda line: line.place)[:most]
            for line in found:
                line.allowed = _allowed(line, self._now, most)
            closed = [line for line in found if not line.allowed]
            self._write(closed)
            walked += len(closed)
            self.left_off = self.left_off or walked >= LONGEST_WALK
            if not closed or len(found) < most or self.left_off:
                return [line for line in found if line.allowed]

    def _open_lines(self, queue: int, handler: int, most: int) -> list[Line]:
        limit = self._known[handler]
        up_to = 0 if limit is None or limit.running is None else limit.running
        rows = self._connection.execute(sql.OPEN_LINES, (queue, handler, most, up_to)).get
        return [Line(*row, limit) for row in msgspec.json.decode(str(rows), type=list[tuple[int, int, float, int]])]

    def _fetch(self, lines: Sequence[Line], depth: int) -> None:
        """See the first jobs of these lines: one more than are wanted, which tells whether any is left behind them."""
        by_id = {line.id: line for line in lines}
        most = min(depth, max(line.allowed for line in lines)) + 1
        rows = self._connection.execute(sql.HEADS, (packed.rows(list(by_id)), most)).get
        heads: dict[int, list[Head]] = {id: [] for id in by_id}
        for number, priority, due_at, id, crashes, size in sorted(msgspec.json.decode(str(rows), type=list[_HeadRow])):
            heads[number].append(Head(by_id[number], priority, due_at, id, crashes, size))
        for line in lines:
            line.heads = heads[line.id]

    def _write(self, lines: Sequence[Line]) -> None:
        if not lines:
            return
        self.changed = True
        rows: list[tuple[object, ...]] = []
        for line in lines:
            if line.taken and line.limit is not None:
                line.full_at = line.limit.spend(full_at=line.full_at, now=self._now, jobs=line.taken)
            opens_at = _opens_at(line, self._now)
            self._timed = self._timed or (opens_at or 0) > 0
            rows.append((line.id, line.place, opens_at, line.full_at))
        self._connection.execute(sql.LEAVE, (packed.rows(rows),))

    def _next_place(self, count: int) -> int:
        """The first of so many places behind all lines."""
        if self._place is None:
            self._place = int(str(self._connection.execute(sql.TAKE_PLACES, (PLACES,)).get)) - PLACES
        first, self._place = self._place, self._place + count
        return first

    # ------------------------------------------------------------------------------------------------------------- upkeep

    def give_back(self, holder: int) -> None:
        """What that holder has is about to leave running."""
        self._connection.execute(sql.GIVE_BACK, (holder,))

    def prune(self) -> None:
        """Forget lines that stand for nothing any more."""
        self._connection.execute(sql.OLD_LINES, (OLD_LINES, self._now))


def _allowed(line: Line, now: float, most: int) -> int:
    return most if line.limit is None else line.limit.open(running=line.running, full_at=line.full_at, now=now, most=most)


def _opens_at(line: Line, now: float) -> float | None:
    """When the line is looked at again. Nothing is known of the jobs of one that was closed when it was come to."""
    limit, running = line.limit, line.running + line.taken
    if line.allowed and len(line.heads) <= line.taken:
        return None
    if limit is None or limit.open(running=running, full_at=line.full_at, now=now, most=1):
        return sql.OPEN
    if limit.running is not None and running >= limit.running:
        return sql.FULL
    return limit.next_at(full_at=line.full_at, now=now)
