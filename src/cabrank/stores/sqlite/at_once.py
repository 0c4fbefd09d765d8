"""An ordinary turn in one statement: blocks end, at most one begins, and everything else in the file is as the last turn left it.

That is what most turns of a process are whose workers keep up. A trigger looks whether the file is as it is remembered, and changes
nothing if it is not: then the turn is taken step by step. So nothing here has to be right about what others do, it only guesses.
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
from cabrank.stores.sqlite.blocks import Blocks, Own, stored
from cabrank.stores.sqlite.counts import Opening
from cabrank.stores.sqlite.names import Names
from cabrank.stores.sqlite.settle import Ended

NOTHING = "[]"
NO_BLOCK = (0, 0, 0, 0, 0, 0.0, "", b"")

_Values = tuple[int | float | str | bytes | None, ...]


class Begun(NamedTuple):
    """What begins with a turn, if anything does: `values` are what the statement stores of it."""

    jobs: Sequence[Job] = ()
    values: _Values = NO_BLOCK
    own: Own | None = None


class Plan(NamedTuple):
    """A turn that may be taken in one statement: its answer, that statement's values, and which blocks end and begin."""

    turn: Turn
    values: _Values
    ended: Sequence[Own]
    begun: Own | None


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
        counts = [(number, its.jobs, its.size, 0) for number, its in sorted(opening.queues.items())]
        busy = (
            told
            or opening.cancelling
            or opening.progress
            or opening.lines is not None
            or any(its.paused for its in opening.queues.values())
        )
        self._opening = None if busy else opening
        self._counts = packed.rows(counts)

    def forget(self) -> None:
        """Nothing is known of the file."""
        self._opening = None

    def plan(self, number: int, new: Sequence[Submission], ended: Ended, want: Mapping[str, Want], now: float) -> Plan | None:
        """How to take that turn, or None: it must be taken step by step."""
        opening = self._opening
        if opening is None or not (new or ended) or self._blocks.apart or (opening.later_at is not None and opening.later_at <= now):
            return None
        whole, wanted, begun = self._whole(ended), self._wanted(want), self._begun(new, want, opening, now)
        if whole is None or wanted is None or begun is None:
            return None
        turn = Turn(
            admitted=[STORED] * len(new),
            claimed=[Leases(begun.jobs)] if isinstance(begun.jobs, Block) else [Lease(job, 1) for job in begun.jobs],
            next_due_s=None if opening.later_at is None else opening.later_at - now,
        )
        rows = kept.rows_of(whole, ended.settlements, self._keeping, now) if whole else NOTHING
        values = (self._blocks.holder, opening.later_at, self._counts, packed.rows(wanted), number, now, rows, *begun.values)
        return Plan(turn, values, whole, begun.own)

    def carry_out(self, plan: Plan) -> bool:
        """Take the turn; whether the file was as it is remembered. If not, nothing was done."""
        try:
            self._connection.execute(sql.TAKE, plan.values)
        except apsw.ConstraintError:
            self._opening = None
            return False
        self._blocks.went(plan.ended)
        if plan.begun is not None:
            self._blocks.came(plan.begun)
        self._blocks.commit()
        return True

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
        numbers = [number for queue in want if (number := self._queues.known(queue)) is not None]
        return numbers if len(numbers) == len(want) else None

    def _begun(self, new: Sequence[Submission], want: Mapping[str, Want], opening: Opening, now: float) -> Begun | None:
        """What begins, if that is all that comes, and it finds room as it would by itself."""
        if not new:
            return Begun()
        if any(one.key or one.tick is not None or one.marked for one in new):
            return None
        parts = list(alike(one.jobs for one in new))
        its = want.get(parts[0][0].queue)
        if len(parts) > 1 or its is None:
            return None
        return self._startable(parts[0], parts[0][0], its, opening, now)

    def _startable(self, jobs: Sequence[Job], first: Job, want: Want, opening: Opening, now: float) -> Begun | None:
        queue, handler, size = self._queues.known(first.queue), self._handlers.known(first.handler), size_of(jobs)
        if queue is None or handler is None or first.handler not in self._terms.handlers or first.due_at > now:
            return None
        if len(jobs) > want.jobs or size > want.bytes or self._is_bounded_else:
            return None
        if not isinstance(jobs, Block) and any(job.limit_key is not None for job in jobs):
            return None
        waiting, bound = opening.queue(queue), self._terms.settings.room_of(first.queue, STORE_BOUND)
        if bound.refusal(waiting.jobs, waiting.size, len(jobs), size) or (bound.is_timed and waiting.jobs):
            return None
        values = (first.id, len(jobs), queue, handler, first.priority, first.deadline_at, *stored(jobs))
        return Begun(jobs, values, Own(first.id, len(jobs), handler, queue))
