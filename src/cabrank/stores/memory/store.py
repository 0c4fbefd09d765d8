"""One holder of a ledger in memory. Its turn never suspends, so it is as atomic as a function call."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter
from random import Random

from cabrank.clock import Clock
from cabrank.errors import StoreUnavailable
from cabrank.job import BARE, Job, Lease, Settlement, parted
from cabrank.policy import Limit
from cabrank.settings import MEMORY_BOUND, Settings
from cabrank.states import State, after
from cabrank.stores.contract import (
    BROWSED,
    SUSPECT_CRASHES,
    Admission,
    Arrival,
    Capabilities,
    JobFilter,
    JobRecord,
    Page,
    Submission,
    Tally,
    Terms,
    Turn,
    Verdict,
    Want,
)
from cabrank.stores.memory import inspector
from cabrank.stores.memory.ledger import NEW, Holder, Ledger, Run
from cabrank.stores.memory.lines import Line

CAPABILITIES = Capabilities(
    durable=False, shared=False, judges_room=True, bound=MEMORY_BOUND, promise="accepted in memory: lost if the process dies"
)

Fence = tuple[int, int]

_handler, _payload = attrgetter("handler"), attrgetter("payload")


class MemoryStore:
    """See `Store` and `Inspector`. Jobs are shared, not copied: a handler gets the very object that was submitted."""

    def __init__(self, clock: Clock, rng: Random | None = None, *, ledger: Ledger | None = None) -> None:
        self.ledger = ledger or Ledger(clock, rng)
        self.holder = 0
        self._terms: Terms | None = None
        self._arrived: asyncio.Event | None = None
        self._suspect = False
        self._last: tuple[int, Turn] | None = None
        self._limits: Mapping[str, Limit] = {}

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
        self.ledger.watchers.append(self._watch)

    async def close(self) -> None:
        """Stop being a holder."""
        if self._watch in self.ledger.watchers:
            self.ledger.watchers.remove(self._watch)
        self.ledger.leave(self.holder)

    async def take_ids(self) -> int:
        """A block of ids."""
        return self.ledger.take_ids()

    def take_room(self, queue: str, jobs: int, size: int) -> bool:
        """Judged on plain counters."""
        assert self._terms is not None  # noqa: S101 -- for the type checker
        line = self.ledger.line(queue)
        bound = self._terms.settings.bound_of(queue, MEMORY_BOUND)
        if not line.has_room(jobs, size, bound):
            return False
        line.add(jobs, size)
        return True

    async def turn(self, number: int, *, new: Sequence[Submission], settlements: Sequence[Settlement], want: Mapping[str, Want]) -> Turn:
        """See `Store.turn`."""
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        self.ledger.take_back_expired()
        holder = self._alive()
        turn = self._take_turn(holder, new, settlements, want)
        self._last = (number, turn)
        if settlements or turn.leases or (new and any(answer.verdict is Verdict.STORED for answer in turn.admitted)):
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

    def _alive(self) -> Holder:
        """This holder; a new one if it was taken for dead meanwhile, for its jobs are others' now."""
        if self._terms is None:
            raise StoreUnavailable("the store is not open")
        if self.holder not in self.ledger.holders:
            self.holder = self.ledger.register(self._terms)
        return self.ledger.holders[self.holder]

    def _take_turn(self, holder: Holder, new: Sequence[Submission], settlements: Sequence[Settlement], want: Mapping[str, Want]) -> Turn:
        ledger = self.ledger
        now = ledger.clock.now()
        lost, cancelled = self._settle(settlements, now)
        for line in ledger.lines.values():
            line.promote(now)
        ledger.limited.promote(now)
        admitted = self._judge(new, holder.terms.settings)
        for submission, admission in zip(new, admitted, strict=True):
            if admission.verdict is Verdict.STORED:
                ledger.add(submission.jobs, now)
        self._suspect = False
        leases = self._claim_suspect(want, holder.terms.handlers)
        if not leases:
            leases = [lease for queue, its in want.items() for lease in self._claim(queue, its, holder.terms.handlers)]
        return Turn(
            admitted=admitted,
            leases=leases,
            lost=lost,
            cancels=[*cancelled, *self._cancels()],
            next_due_s=self._next_due_s(now, want),
            suspect=self._suspect,
        )

    def _next_due_s(self, now: float, want: Mapping[str, Want]) -> float | None:
        """How long until a job becomes ready, or may start because its limit lets it."""
        limited = self.ledger.limited
        moments = [line.next_due_at() for line in self.ledger.lines.values()]
        waits_s = [at - now for at in (*moments, limited.next_due_at()) if at is not None]
        if want and (opens_at := limited.next_open_at()) is not None:
            waits_s.append(opens_at - self.ledger.clock.monotonic())
        return max(0.0, min(waits_s)) if waits_s else None

    def _judge(self, new: Sequence[Submission], settings: Settings) -> list[Admission]:
        """One after another; behind one that found no room nobody is let past it."""
        admitted: list[Admission] = []
        full: dict[str, Admission] = {}
        for submission in new:
            before = next((full[job.queue] for job in submission.jobs if job.queue in full), None) if full else None
            admission = self.ledger.judge(submission, settings, MEMORY_BOUND, before)
            if admission.verdict is Verdict.FULL:
                full.setdefault(admission.queue, admission)
            admitted.append(admission)
        return admitted

    def _settle(self, settlements: Sequence[Settlement], now: float) -> tuple[list[Fence], list[Fence]]:
        """The fences of leases that were lost, and of jobs that were to wait again and had been cancelled."""
        ledger = self.ledger
        returned, others = parted(settlements)
        lost = ledger.finish(returned) if returned else []
        if returned and ledger.kept is not None:
            ledger.kept.add([settlement for settlement in returned if settlement not in lost] if lost else returned, now)
        cancelled: list[Fence] = []
        for settlement in others:
            was_cancelled = settlement.id in ledger.cancelling and after(State.RUNNING, settlement.cause) is State.WAITING
            if not ledger.settle(settlement):
                lost.append(settlement)
            elif was_cancelled:
                cancelled.append((settlement.id, settlement.run))
        return [(settlement.id, settlement.run) for settlement in lost], cancelled

    def _claim_suspect(self, want: Mapping[str, Want], handlers: frozenset[str]) -> list[Lease]:
        """The suspect that is next in one of the queues, if this holder runs nothing."""
        for queue in (queue for queue, its in want.items() if its.alone):
            job = self._next(queue, handlers)
            if job is not None and self._crashes(job) >= SUSPECT_CRASHES:
                return [self.ledger.lease(job, self.holder)]
            if job is not None:
                self.ledger.lines[queue].untake((job,))
            line = self._line(queue, handlers) if self.ledger.limited else None
            if line is not None and self._crashes(line.head) >= SUSPECT_CRASHES:
                job = self.ledger.limited.take(line, self._limits, self.ledger.clock.monotonic())
                return [self.ledger.lease(job, self.holder)]
        return []

    def _claim(self, queue: str, want: Want, handlers: frozenset[str]) -> list[Lease]:
        if self.ledger.limited and self._line(queue, handlers) is not None:
            return self._claim_in_turns(queue, want, handlers)
        leases = self._claim_fresh(queue, want, handlers)
        size = sum(len(lease.job.payload) for lease in leases)
        while len(leases) < want.jobs:
            job = self._next(queue, handlers)
            if job is None:
                break
            size += len(job.payload)
            crashes = self._crashes(job)
            if not want.takes(len(leases), size, crashes):
                self.ledger.lines[queue].untake((job,))
                self._suspect = self._suspect or crashes >= SUSPECT_CRASHES
                break
            leases.append(self.ledger.lease(job, self.holder))
        if not leases and self.ledger.limited and self._line(queue, handlers) is not None:
            return self._claim_in_turns(queue, want, handlers)  # all that were here have got a limit since they came
        return leases

    def _claim_in_turns(self, queue: str, want: Want, handlers: frozenset[str]) -> list[Lease]:
        """As `_claim`, of jobs without a limit and of those in the lines of theirs: whichever is next goes first.

        A job in line is leased only to start at once: what its limit lets start now must not wait for a worker.
        """
        leases: list[Lease] = []
        size = 0
        free = self._next(queue, handlers)
        while True:
            line = self._line(queue, handlers)
            limited = line is not None and (free is None or (line.head.priority, line.head.id) < (free.priority, free.id))
            job = line.head if line is not None and limited else free
            if job is None:
                return leases
            size += len(job.payload)
            crashes = self._crashes(job)
            if len(leases) >= (want.idle if limited else want.jobs) or not want.takes(len(leases), size, crashes):
                self._suspect = self._suspect or crashes >= SUSPECT_CRASHES
                break
            if line is not None and limited:
                self.ledger.limited.take(line, self._limits, self.ledger.clock.monotonic())
            else:
                free = self._next(queue, handlers)
            leases.append(self.ledger.lease(job, self.holder))
        if free is not None:
            self.ledger.lines[queue].untake((free,))
        return leases

    def _line(self, queue: str, handlers: frozenset[str]) -> Line | None:
        return self.ledger.limited.next(queue, self._limits, handlers, self.ledger.clock.monotonic())

    def _claim_fresh(self, queue: str, want: Want, handlers: frozenset[str]) -> list[Lease]:
        """The quick way where no job has a history and every job can be claimed here; else nothing, and each is looked at."""
        ledger, line = self.ledger, self.ledger.lines.get(queue)
        if line is None or ledger.history or ledger.stale:
            return []
        jobs = line.take(want.jobs)
        if (
            jobs
            and set(map(_handler, jobs)) <= (handlers | {BARE}) - self._limits.keys()
            and sum(map(len, map(_payload, jobs))) <= want.bytes
        ):
            return ledger.lease_fresh(jobs, self.holder)
        line.untake(jobs)
        return []

    def _next(self, queue: str, handlers: frozenset[str]) -> Job | None:
        """Take the first job out of a line that is still wanted and that this holder has a handler for."""
        line = self.ledger.lines.get(queue)
        strange: list[Job] = []
        found: Job | None = None
        while line is not None and found is None:
            job = line.pop()
            if job is None:
                break
            if not self.ledger.still_waits(job):
                continue
            if job.handler in self._limits:  # it came before its handler had a limit
                self.ledger.take_in(job)
                continue
            if job.function is None and job.handler not in handlers:
                strange.append(job)
            else:
                found = job
        if line is not None:
            line.untake(strange)
        return found

    def _crashes(self, job: Job) -> int:
        return self.ledger.history.get(job.id, NEW).crashes if self.ledger.history else 0

    def _cancels(self) -> list[tuple[int, int]]:
        if not self.ledger.cancelling:
            return []
        runs = [row for row in map(self.ledger.rows.get, self.ledger.cancelling) if isinstance(row, Run) and row.holder == self.holder]
        return [(run.lease.job.id, run.lease.run) for run in runs]

    # ---------------------------------------------------------------------------------------------------------- people

    async def find(self, ids: Collection[int]) -> Mapping[int, JobRecord]:
        """See `Inspector.find`."""
        return inspector.find(self.ledger, ids)

    async def browse(self, which: JobFilter, *, after: int = 0, limit: int = BROWSED) -> Page:
        """See `Inspector.browse`."""
        return inspector.browse(self.ledger, which, after, limit)

    async def tally(self) -> Mapping[str, Tally]:
        """See `Inspector.tally`."""
        return inspector.tally(self.ledger)

    async def cancel(self, id: int) -> bool:
        """See `Inspector.cancel`."""
        return inspector.cancel(self.ledger, id)

    async def reopen(self, id: int) -> bool:
        """See `Inspector.reopen`."""
        return inspector.reopen(self.ledger, id)
