"""One holder of a ledger in memory. Its turn never suspends, so it is as atomic as a function call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from random import Random

from cabrank.block import Block, Leases, queues_of
from cabrank.clock import Clock
from cabrank.errors import StoreUnavailable
from cabrank.job import Job, Lease, Progress, Settlement
from cabrank.policy import Limit
from cabrank.settings import MEMORY_BOUND, Settings
from cabrank.states import Cause, State, after
from cabrank.stores.contract import (
    NOTHING_RETURNED,
    SUSPECT_CRASHES,
    Admission,
    Arrival,
    Capabilities,
    Returned,
    Room,
    Submission,
    Terms,
    Turn,
    Verdict,
    Want,
)
from cabrank.stores.memory import aging, room
from cabrank.stores.memory.held import Holder, Ran
from cabrank.stores.memory.inspected import Inspected
from cabrank.stores.memory.kept import failed_before
from cabrank.stores.memory.ledger import Ledger
from cabrank.stores.memory.lines import Line as LimitLine
from cabrank.stores.memory.overflow import Drops
from cabrank.stores.memory.rows import NEW, Run

CAPABILITIES = Capabilities(
    durable=False,
    shared=False,
    judges_room=True,
    bound=MEMORY_BOUND,
    durability="memory",
    promise="accepted in memory: lost if the process dies",
)

Fence = tuple[int, int]


class MemoryStore(Inspected):
    """See `Store` and `Inspector`. Jobs are shared, not copied: a handler gets the very object that was submitted."""

    def __init__(self, clock: Clock, rng: Random | None = None, *, ledger: Ledger | None = None) -> None:
        self.ledger = ledger or Ledger(clock, rng)
        self.holder = 0
        self._terms: Terms | None = None
        self._arrived: asyncio.Event | None = None
        self._suspect = False
        self._rooms: dict[str, Room | None] = {}
        self._last: tuple[int, Turn] | None = None
        self._limits: Mapping[str, Limit] = {}
        self._drops = Drops(self.ledger)
        self._given_up: list[Lease] = []
        self._now = 0.0

    @property
    def capabilities(self) -> Capabilities:
        """Fixed."""
        return CAPABILITIES

    @property
    def prefix(self) -> str:
        """The random part of text ids."""
        return self.ledger.prefix

    async def open(self, terms: Terms) -> None:
        """Become a holder."""
        self._terms = terms
        self._limits = terms.limits
        self._arrived = asyncio.Event()
        self.holder = self.ledger.register(terms)
        self._given_up = self.ledger.take_back_expired(terms)
        self.ledger.watchers.append(self._watch)

    async def close(self) -> None:
        """Stop being a holder."""
        if self._watch in self.ledger.watchers:
            self.ledger.watchers.remove(self._watch)
        self.ledger.leave(self.holder)

    async def take_ids(self) -> int:
        """A block of ids."""
        return self.ledger.take_ids()

    async def last_tick(self, schedule: str, spec: str) -> float:
        """See `Store.last_tick`."""
        return self.ledger.ticks.last(schedule, spec, self.ledger.clock.now())

    def room(self, queue: str) -> Room | None:
        """Judged on plain counters."""
        if queue not in self._rooms:
            assert self._terms is not None  # noqa: S101 -- for the type checker
            bound = self._terms.settings.bound_of(queue, MEMORY_BOUND)
            judged = bound.is_timed or self._terms.settings.bounds_all  # by the turn
            self._rooms[queue] = None if judged else Room(self.ledger.line(queue), bound)
        return self._rooms[queue]

    async def turn(
        self,
        number: int,
        *,
        new: Sequence[Submission],
        settlements: Sequence[Settlement],
        want: Mapping[str, Want],
        returned: Returned = NOTHING_RETURNED,
        progress: Sequence[Progress] = (),
    ) -> Turn:
        """See `Store.turn`."""
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        if self._terms is None:
            raise StoreUnavailable("the store is not open")
        self._given_up += self.ledger.take_back_expired(self._terms)
        holder = self._alive(self._terms)
        if progress:
            self.ledger.told(progress)
        turn = self._take_turn(holder, new, settlements, returned, want)
        self._last, self._given_up = (number, turn), []
        if (
            settlements
            or progress
            or returned
            or turn.claimed
            or (new and any(answer.verdict is Verdict.STORED for answer in turn.admitted))
        ):
            self.ledger.tell(self.holder)
        return turn

    async def arrival(self) -> Arrival:
        """Wait for another holder's turn."""
        assert self._arrived is not None  # noqa: S101
        await self._arrived.wait()
        self._arrived.clear()
        return Arrival()

    def _watch(self, holder: int) -> None:
        if holder != self.holder and self._arrived is not None:
            self._arrived.set()

    def _alive(self, terms: Terms) -> Holder:
        """This holder; a new one if it was taken for dead meanwhile, for its jobs are others' now."""
        if self.holder not in self.ledger.holders:
            self.holder = self.ledger.register(terms)
        return self.ledger.holders[self.holder]

    def _take_turn(
        self, holder: Holder, new: Sequence[Submission], settlements: Sequence[Settlement], returned: Returned, want: Mapping[str, Want]
    ) -> Turn:
        ledger = self.ledger
        now = self._now = ledger.clock.now()
        lost, cancelled = self._settle(settlements, returned, holder.terms) if settlements or returned else ([], [])
        for line in ledger.lines.values():
            line.promote(now)
        ledger.limited.promote(now)
        admitted = self._admit(new, holder.terms.settings, now)
        self._suspect = False
        if ledger.paused:
            want = {queue: its for queue, its in want.items() if queue not in ledger.paused}
        claimed: list[Lease | Leases] = [*self._claim_suspect(want, holder.terms.handlers)]
        if not claimed:
            claimed = [lease for queue, its in want.items() for lease in self._claim(queue, its, holder.terms.handlers)]
        dropped = self._drops.make_room(_stored(new, admitted), holder.terms.settings) if new else []
        return Turn(
            admitted=admitted,
            claimed=claimed,
            dropped=dropped,
            lost=lost,
            cancels=[*cancelled, *self._cancels()],
            next_due_s=self._next_due_s(now, want),
            suspect=self._suspect,
            paused=tuple(ledger.paused),
            given_up=self._given_up,
        )

    def _next_due_s(self, now: float, want: Mapping[str, Want]) -> float | None:
        """How long until a job becomes ready, or may start because its limit lets it."""
        limited = self.ledger.limited
        moments = [line.next_due_at() for line in self.ledger.lines.values()]
        waits_s = [at - now for at in (*moments, limited.next_due_at()) if at is not None]
        if want and (opens_at := limited.next_open_at()) is not None:
            waits_s.append(opens_at - self.ledger.clock.monotonic())
        return max(0.0, min(waits_s)) if waits_s else None

    def _admit(self, new: Sequence[Submission], settings: Settings, now: float) -> list[Admission]:
        """One after another; behind one that found no room nobody is let past it."""
        admitted: list[Admission] = []
        full: dict[str, Admission] = {}
        refusal = partial(room.refusal, self.ledger, settings=settings)
        for submission in new:
            before = next((full[queue] for queue in queues_of(submission.jobs) if queue in full), None) if full else None
            admission = self.ledger.ticks.repeated(submission) or self.ledger.judge(submission, settings, refusal, before)
            self.ledger.ticks.take(submission, admission)
            if admission.verdict is Verdict.FULL:
                full.setdefault(admission.queue, admission)
            admitted.append(admission)
            if admission.verdict is Verdict.STORED:
                self.ledger.add(submission.jobs, now)
        return admitted

    def _settle(self, settlements: Sequence[Settlement], returned: Returned, terms: Terms) -> tuple[list[Fence], list[Fence]]:
        """The fences of leases that were lost, and of jobs that were to wait again and had been cancelled."""
        ledger, holder = self.ledger, self.holder
        lost: list[Fence] = []
        finished: list[Ran] = []
        again: list[Run | Block] = []  # only of these a run can have failed before
        for run, ids in returned.items():
            ran, gone = ledger.finish(holder, run, ids)
            lost += [(id, run) for id in gone]
            finished += ran
            again += (one for _, one in ran) if run > 1 else ()
        results: dict[int, Settlement] = {}
        its: list[Ran] = []
        cancelled: list[Fence] = []
        for settlement in settlements:
            fence = settlement.id, settlement.run
            if settlement.cause is Cause.RETURNED:
                ran, _ = ledger.finish(holder, settlement.run, (settlement.id,))
                if ran:
                    results[settlement.id] = settlement
                    its += ran
                    again += (one for _, one in ran) if settlement.run > 1 else ()
                else:
                    lost.append(fence)
                continue
            was_cancelled = settlement.id in ledger.cancelling and after(State.RUNNING, settlement.cause) is State.WAITING
            if not ledger.settle(holder, settlement, self._now):
                lost.append(fence)
            elif was_cancelled:
                cancelled.append(fence)
        if ledger.kept is not None:
            failed = failed_before(again)
            if finished:
                ledger.kept.add(finished, {}, failed, terms, self._now)
            if its:
                ledger.kept.add(its, results, failed, terms, self._now)
        return lost, cancelled

    def _claim_suspect(self, want: Mapping[str, Want], handlers: frozenset[str]) -> list[Lease]:
        """The suspect that is next in one of the queues, if this holder runs nothing."""
        if not self.ledger.history:  # nothing has crashed
            return []
        for queue in (queue for queue, its in want.items() if its.alone):
            job = self._next(queue, handlers)
            if isinstance(job, Job) and self._crashes(job) >= SUSPECT_CRASHES:
                return [self.ledger.lease(job, self.holder, self._now)]
            if job is not None:
                self.ledger.lines[queue].untake((job,))
            line = self._line(queue, handlers) if self.ledger.limited else None
            if line is not None and self._crashes(line.head) >= SUSPECT_CRASHES:
                job = self.ledger.limited.take(line, self._limits, self.ledger.clock.monotonic())
                return [self.ledger.lease(job, self.holder, self._now)]
        return []

    def _claim(self, queue: str, want: Want, handlers: frozenset[str]) -> list[Lease | Leases]:
        """Of jobs without a limit and of those in the lines of theirs: whichever is next goes first.

        A job in line is leased only to start at once: what its limit lets start now must not wait for a worker.
        """
        ledger = self.ledger
        claimed: list[Lease | Leases] = []
        waiting = ledger.lines.get(queue)
        if (waiting is None or not waiting.count) and not ledger.stale and not ledger.limited:
            return claimed  # nothing waits; where jobs have limits, a look at their lines also ends waits that are over
        taken = size = 0
        free: Job | Block | None = None
        while taken < want.jobs:
            free = self._next(queue, handlers) if free is None else free
            line = self._line(queue, handlers) if ledger.limited else None
            limited = line is not None and (free is None or aging.goes_first(line, free, ledger.lines[queue]))
            if isinstance(free, Block) and not limited:
                count = free.fitting(min(aging.before(free, line, ledger.lines[queue]), want.jobs - taken), want.bytes - size) or (
                    not taken
                )
                if not count:
                    break
                part, free = (free, None) if count == len(free) else (free[:count], free[count:])
                taken, size = taken + count, size + part.size
                claimed.append(ledger.lease_block(part, self.holder, self._now))
                continue
            job = line.head if line is not None and limited else free
            if not isinstance(job, Job):
                break
            size += len(job.payload)
            crashes = self._crashes(job)
            if (limited and taken >= want.idle) or not want.takes(taken, size, crashes):
                self._suspect = self._suspect or crashes >= SUSPECT_CRASHES
                break
            if line is not None and limited:
                ledger.limited.take(line, self._limits, ledger.clock.monotonic())
            else:
                free = None
            taken += 1
            claimed.append(ledger.lease(job, self.holder, self._now))
        if free is not None:
            ledger.lines[queue].untake((free,))
        return claimed

    def _line(self, queue: str, handlers: frozenset[str]) -> LimitLine | None:
        return self.ledger.limited.next(queue, self._limits, handlers, self.ledger.clock.monotonic())

    def _next(self, queue: str, handlers: frozenset[str]) -> Job | Block | None:
        """Take what is first in a line, still wanted, and has a handler here."""
        line = self.ledger.lines.get(queue)
        strange: list[Job | Block] = []
        found: Job | Block | None = None
        while line is not None and found is None:
            one = line.pop()
            if one is None:
                break
            if isinstance(one, Job) and not self.ledger.still_waits(one):
                continue
            if one.handler in self._limits:  # it came before its handler had a limit
                for job in one if isinstance(one, Block) else (one,):
                    self.ledger.take_in(job)
            elif one.handler in handlers or (one.bare if isinstance(one, Block) else one.function is not None):
                found = one
            else:
                strange.append(one)
        if line is not None:
            line.untake(strange)
        return found

    def _crashes(self, job: Job) -> int:
        return self.ledger.history.get(job.id, NEW).crashes if self.ledger.history else 0

    def _cancels(self) -> list[tuple[int, int]]:
        if not self.ledger.cancelling:
            return []
        runs = [run for id in self.ledger.cancelling if (run := self.ledger.running(id)) is not None and run.holder == self.holder]
        return [(run.lease.job.id, run.lease.run) for run in runs]


def _stored(new: Sequence[Submission], admitted: Sequence[Admission]) -> Iterator[Submission]:
    return (submission for submission, admission in zip(new, admitted, strict=True) if admission.verdict is Verdict.STORED)
