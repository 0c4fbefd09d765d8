"""An ordinary turn in one statement: blocks end, at most one begins or some jobs come to wait, and all else is as the last turn left it.

That is what most turns are of a process whose workers keep up, and of one that only submits. A trigger looks whether the file is as it
is remembered, and changes nothing if it is not: then the turn is taken step by step. So nothing here has to be right about what others
do, it only guesses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import apsw

from cabrank.block import Block, Leases, size_of
from cabrank.job import Job, Lease
from cabrank.settings import STORE_BOUND, Overflow
from cabrank.states import Cause
from cabrank.stores.contract import STORED, Submission, Terms, Turn, Want
from cabrank.stores.sqlite import at_once_statements as sql
from cabrank.stores.sqlite import kept, packed
from cabrank.stores.sqlite.admit import alike
from cabrank.stores.sqlite.blocks import Blocks, Own, cut, stored
from cabrank.stores.sqlite.counts import Opening
from cabrank.stores.sqlite.names import Names
from cabrank.stores.sqlite.settle import Ended

NOTHING = "[]"
NO_JOBS = (0, 0, 0, 0, 0.0, "[]", b"", 0, 0, 0, 0)
MOST_ROWS = 100  # that come to wait: for more it is cheaper to take them as an array, step by step

_Values = tuple[int | float | str | bytes | None, ...]


class Came(NamedTuple):
    """What comes with a turn, if anything does: those that start, the block that they are, those that wait, the bytes of all.

    `values` are what the statement stores of them.
    """

    start: Sequence[Job] = ()
    own: Own | None = None
    queue: int = 0
    wait: int = 0
    size: int = 0
    values: _Values = NO_JOBS


class Plan(NamedTuple):
    """A turn that may be taken in one statement: its answer, that statement's values, which blocks end and what comes."""

    turn: Turn
    values: _Values
    ended: Sequence[Own]
    came: Came


class AtOnce:
    """Takes such turns for one connection."""

    def __init__(
        self, connection: apsw.Connection, *, queues: Names, handlers: Names, blocks: Blocks, terms: Terms, keeping: kept.Keeping
    ) -> None:
        self._connection = connection
        self._queues = queues
        self._handlers = handlers
        self._blocks = blocks
        self._terms = terms
        self._keeping = keeping
        self._opening: Opening | None = None
        self._counts = ""
        self._is_bounded_else = terms.settings.bounds_all or terms.settings.overflow is not Overflow.WAIT
        connection.execute(sql.VIEW)
        connection.execute(sql.TRIGGER)

    def remember(self, opening: Opening, *, told: bool) -> None:
        """How a turn left the file: it began with `opening`, which was kept up to date. `told`: runs told how far they are."""
        busy = (
            told
            or opening.cancelling
            or opening.progress
            or opening.lines is not None
            or any(its.paused for its in opening.queues.values())
        )
        self._opening = None if busy else opening
        if not busy:
            self._count(opening)

    def forget(self) -> None:
        """Nothing is known of the file."""
        self._opening = None

    def plan(self, number: int, new: Sequence[Submission], ended: Ended, want: Mapping[str, Want], now: float) -> Plan | None:
        """How to take that turn, or None: it must be taken step by step."""
        opening = self._opening
        if opening is None or not (new or ended) or self._blocks.apart or (opening.later_at is not None and opening.later_at <= now):
            return None
        whole, wanted, came = self._whole(ended), self._wanted(want), self._coming(new, want, opening, now)
        if whole is None or wanted is None or came is None:
            return None
        turn = Turn(
            admitted=[STORED] * len(new),
            claimed=[Leases(came.start)] if isinstance(came.start, Block) else [Lease(job, 1) for job in came.start],
            next_due_s=None if opening.later_at is None else opening.later_at - now,
        )
        rows = kept.rows_of(whole, ended.settlements, self._keeping, now) if whole else NOTHING
        values = (self._blocks.holder, opening.later_at, self._counts, packed.rows(wanted), number, now, rows, *came.values)
        return Plan(turn, values, whole, came)

    def carry_out(self, plan: Plan) -> bool:
        """Take the turn; whether the file was as it is remembered. If not, nothing was done."""
        try:
            self._connection.execute(sql.TAKE, plan.values)
        except apsw.ConstraintError:
            self._opening = None
            return False
        self._blocks.went(plan.ended)
        if plan.came.own is not None:
            self._blocks.came(plan.came.own)
        self._blocks.commit()
        if plan.came.wait and self._opening is not None:
            waiting = self._opening.queue(plan.came.queue)
            waiting.add(plan.came.wait, plan.came.size)
            self._count(self._opening)
        return True

    def _count(self, opening: Opening) -> None:
        self._counts = packed.rows([(number, its.jobs, its.size, 0) for number, its in sorted(opening.queues.items())])

    def _whole(self, ended: Ended) -> Sequence[Own] | None:
        """The blocks that end, if nothing else does."""
        if ended.progress or any(run != 1 for run in ended.returned):
            return None
        if any(one.run != 1 or one.cause is not Cause.RETURNED for one in ended.settlements):
            return None
        whole = self._blocks.whole(ended.returned, ended.settlements)
        jobs = len(ended.returned.get(1, ())) + len(ended.settlements)
        return whole if sum([own.jobs for own in whole]) == jobs else None

    def _wanted(self, want: Mapping[str, Want]) -> Collection[int] | None:
        """The numbers of the queues that are claimed from."""
        wanted = [queue for queue, its in want.items() if its.jobs or its.alone]
        numbers = [number for queue in wanted if (number := self._queues.known(queue)) is not None]
        return numbers if len(numbers) == len(wanted) else None

    def _coming(self, new: Sequence[Submission], want: Mapping[str, Want], opening: Opening, now: float) -> Came | None:
        """What comes, if it is jobs that are alike and find room as they would by themselves, and all of them start or all wait."""
        if not new:
            return Came()
        if self._is_bounded_else or any(one.key or one.tick is not None or one.marked for one in new):
            return None
        parts = list(alike(one.jobs for one in new))
        jobs, first, size = parts[0], parts[0][0], size_of(parts[0])
        queue, handler, its = self._queues.known(first.queue), self._handlers.known(first.handler), want.get(first.queue)
        if len(parts) > 1 or queue is None or handler is None or first.due_at > now:
            return None
        if not isinstance(jobs, Block) and any(job.limit_key is not None for job in jobs):
            return None
        waiting, bound = opening.queue(queue), self._terms.settings.room_of(first.queue, STORE_BOUND)
        if bound.refusal(waiting.jobs, waiting.size, len(jobs), size) or (bound.is_timed and waiting.jobs):
            return None
        values = (first.id, queue, handler, first.priority, first.deadline_at)
        if its is None or not (its.jobs or its.alone):
            rows = (*cut(jobs), 0, len(jobs), waiting.jobs + len(jobs), waiting.size + size)
            return Came((), None, queue, len(jobs), size, values + rows) if len(jobs) <= MOST_ROWS else None
        if len(jobs) > its.jobs or size > its.bytes or first.handler not in self._terms.handlers:
            return None
        return Came(jobs, Own(first.id, len(jobs), handler, queue), queue, 0, 0, (*values, *stored(jobs), len(jobs), 0, 0, 0))
