"""What the memory store keeps, apart from who asks: several holders can share one ledger, as processes share a file."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from operator import attrgetter
from random import Random

import msgspec

from cabrank.clock import Clock
from cabrank.job import Job, Lease, Settlement, new_prefix
from cabrank.settings import Bound, Settings
from cabrank.states import Cause, State, after
from cabrank.stores.contract import ID_BLOCK, STORED, Admission, Submission, Terms, Verdict
from cabrank.stores.memory.kept import Kept
from cabrank.stores.memory.line import Line
from cabrank.stores.memory.lines import Lines


class Run(msgspec.Struct, gc=False):
    """A running job: its lease, and who holds it."""

    lease: Lease
    holder: int


class History(msgspec.Struct, frozen=True):
    """What a job that is not running has behind it."""

    run: int = 0
    failures: int = 0
    crashes: int = 0
    reason: str = ""
    error: str = ""


class Shelved(msgspec.Struct, frozen=True):
    """A job that waits for a person: dead, cancelled, expired or held."""

    job: Job
    state: State
    at: float


class Holder(msgspec.Struct):
    """One opened store. `expires_at` is on the monotonic clock: infinity while its process lives and renews."""

    terms: Terms
    expires_at: float = math.inf


Row = Job | Run | Shelved

NEW = History()


def _is_limited(job: Job) -> bool:
    return job.limit_key is not None


_id, _queue, _payload = attrgetter("id"), attrgetter("queue"), attrgetter("payload")
SWEEP_S = 60.0  # how often jobs that nobody came for are looked at


class Ledger:
    """Rows by id, lines by queue, receipts by key. Every change of a job's state goes through one of the methods here."""

    def __init__(self, clock: Clock, rng: Random | None = None) -> None:
        self.clock = clock
        self.prefix = new_prefix(rng or Random())
        self.rows: dict[int, Row] = {}
        self.history: dict[int, History] = {}
        self.lines: dict[str, Line] = {}
        self.limited = Lines(self.still_waits)
        """The jobs that stand in the lines of their limits instead; their queue's line counts them all the same."""
        self.receipts: OrderedDict[str, tuple[float, bytes, int, int]] = OrderedDict()
        self.holders: dict[int, Holder] = {}
        self.watchers: list[Callable[[int], None]] = []
        self.kept: Kept | None = None
        self.cancelling: set[int] = set()
        """Running jobs that somebody cancelled; their holders are told with their next turns."""
        self.stale = 0
        """Jobs that were cancelled while they waited and still stand in line."""
        self._apart: dict[int, None] = {}  # rows that do not wait in a line
        self._keep_dead_s = 0.0
        self._sweep_at = 0.0
        self._next_id = 1
        self._next_holder = 1

    # --------------------------------------------------------------------------------------------------------- holders

    def register(self, terms: Terms) -> int:
        """Count a holder in."""
        if self.kept is None:
            settings = terms.settings
            self._keep_dead_s = settings.keep_dead_s
            self.kept = Kept(keep_s=settings.keep_done_s, jobs=settings.keep_done_jobs, size=settings.keep_done_bytes)
        holder, self._next_holder = self._next_holder, self._next_holder + 1
        self.holders[holder] = Holder(terms)
        self.take_back_expired()
        return holder

    def leave(self, holder: int) -> None:
        """Count a holder out; what it still holds is given back, without a crash."""
        if self.holders.pop(holder, None) is not None:
            for run in self._held_by(holder):
                self._return(run.lease, Cause.RELEASED, 0.0)
            self.tell(holder)

    def take_back_expired(self) -> None:
        """Make the jobs of holders that are dead or silent ready again, one crash more behind them."""
        now = self.clock.monotonic()
        if now >= self._sweep_at and self.kept is not None:
            self._sweep_at = now + SWEEP_S
            self.forget_shelved(self.clock.now() - self._keep_dead_s)
            self.limited.prune(now)
        for number, holder in [(n, h) for n, h in self.holders.items() if h.expires_at <= now]:
            del self.holders[number]
            self.tell(number)
            for run in self._held_by(number):
                self._crash(run.lease, holder.terms)

    def take_ids(self) -> int:
        """The first id of the next block."""
        first, self._next_id = self._next_id, self._next_id + ID_BLOCK
        return first

    def tell(self, holder: int) -> None:
        """Tell the other holders that something may have arrived."""
        for watcher in self.watchers:
            watcher(holder)

    # -------------------------------------------------------------------------------------------------------- admission

    def line(self, queue: str) -> Line:
        """The line of a queue."""
        found = self.lines.get(queue)
        if found is None:
            found = self.lines[queue] = Line()
        return found

    def judge(self, submission: Submission, settings: Settings, bound: Bound, before: Admission | None = None) -> Admission:
        """What is to become of a submission. Its room is counted in if it is to be stored.

        `before` is the refusal of one that came before it for the same queue: it is refused too, so that nobody is overtaken.
        """
        if submission.key:
            receipt = self.receipts.get(submission.key)
            if receipt is not None and receipt[0] > self.clock.now():
                _, digest, first_id, count = receipt
                return Admission(Verdict.REPEATED if digest == submission.digest else Verdict.KEY_REUSED, first_id, count)
        if not submission.has_room:
            if before is not None:
                return before
            needed: dict[str, list[int]] = {}
            for job in submission.jobs:
                needed.setdefault(job.queue, []).append(len(job.payload))
            for queue, sizes in needed.items():
                limit = settings.bound_of(queue, bound)
                line = self.line(queue)
                if not line.has_room(len(sizes), sum(sizes), limit):
                    return Admission(Verdict.FULL, queue=queue, bound=f"{line.count:,} of {limit.jobs:,} jobs wait")
            for queue, sizes in needed.items():
                self.line(queue).add(len(sizes), sum(sizes))
        if submission.key:
            self._remember(submission, settings)
        return STORED

    def add(self, jobs: Sequence[Job], now: float) -> None:
        """Put new jobs, whose room is counted in, into their lines."""
        self.rows.update(zip(map(_id, jobs), jobs, strict=True))
        if any(map(_is_limited, jobs)):
            for job in jobs:
                self._stand(job, job.due_at, now)
            return
        queues = set(map(_queue, jobs))
        if len(queues) == 1:
            self.line(queues.pop()).extend(jobs, now)
        else:
            for job in jobs:
                self.line(job.queue).extend((job,), now)

    def take_in(self, job: Job) -> None:
        """Put a waiting job into the line of its handler without a key: it came before that had a limit."""
        limited = msgspec.structs.replace(job, limit_key="")
        self.rows[job.id] = limited
        self.limited.put(limited, 0.0, self.clock.now())

    def _stand(self, job: Job, ready_at: float, now: float) -> None:
        if job.limit_key is None:
            self.line(job.queue).put_back(job, ready_at, now)
        else:
            self.limited.put(job, max(ready_at, now), now)

    def lease(self, job: Job, holder: int) -> Lease:
        """Turn a waiting job into a running one, the next run of it."""
        self.lines[job.queue].add(-1, -len(job.payload))
        past = self.history.pop(job.id, NEW) if self.history else NEW
        lease = Lease(job, past.run + 1, past.failures, past.crashes)
        self.rows[job.id] = Run(lease, holder)
        self._apart[job.id] = None
        return lease

    def lease_fresh(self, jobs: Sequence[Job], holder: int) -> list[Lease]:
        """Turn waiting jobs of one queue that have never run into running ones."""
        self.lines[jobs[0].queue].add(-len(jobs), -sum(map(len, map(_payload, jobs))))
        leases = [Lease(job, 1) for job in jobs]
        ids = list(map(_id, jobs))
        self.rows.update(zip(ids, [Run(lease, holder) for lease in leases], strict=True))
        self._apart.update(dict.fromkeys(ids))
        return leases

    # ------------------------------------------------------------------------------------------------------- settlement

    def finish(self, returned: Sequence[Settlement]) -> list[Settlement]:
        """Record runs that returned. What comes back are the settlements that changed nothing."""
        rows, apart = self.rows, self._apart
        lost: list[Settlement] = []
        for settlement in returned:
            row = rows.get(settlement.id)
            if isinstance(row, Run) and row.lease.run == settlement.run:
                del rows[settlement.id], apart[settlement.id]
            else:
                lost.append(settlement)
        if self.cancelling:
            self.cancelling.difference_update(map(_id, returned))
        if self.limited:
            gone = set(map(_id, lost))
            self.limited.ended(settlement.id for settlement in returned if settlement.id not in gone)
        return lost

    def settle(self, settlement: Settlement) -> bool:
        """Record what became of a run that did not return. False: it was not the job's running one any more; nothing is changed."""
        row = self.rows.get(settlement.id)
        if not isinstance(row, Run) or row.lease.run != settlement.run:
            return False
        lease = row.lease
        cause = settlement.cause
        if after(State.RUNNING, cause) is State.WAITING:
            self._return(lease, cause, settlement.after_s, settlement.error)
        else:
            failed, crashed = cause is Cause.GAVE_UP, cause is Cause.WORKER_LOST
            self._shelve(lease, after(State.RUNNING, cause), settlement.reason, settlement.error, failed=failed, crashed=crashed)
        return True

    def apart(self) -> list[Run | Shelved]:
        """The rows that do not wait in a line: running ones and those that wait for a person."""
        return [row for id in self._apart if isinstance(row := self.rows[id], Run | Shelved)]

    def shelve_waiting(self, job: Job, state: State) -> None:
        """Take a job out of its line. It comes up there once more, and is no longer wanted then."""
        self.line(job.queue).add(-1, -len(job.payload))
        self.stale += 1
        self.rows[job.id] = Shelved(job, state, self.clock.now())
        self._apart[job.id] = None

    def still_waits(self, job: Job) -> bool:
        """Whether a job that came up in its line is still wanted. False once for each that was cancelled while it waited."""
        waits = self.rows.get(job.id) is job
        self.stale -= not waits
        return waits

    def unshelve(self, row: Shelved) -> None:
        """Let a job wait again, its failures and crashes forgotten but its runs counted on."""
        now = self.clock.now()
        job = msgspec.structs.replace(row.job, due_at=now)  # another object: the old one may still stand in line
        self.history[job.id] = History(self.history.get(job.id, NEW).run)
        self.rows[job.id] = job
        del self._apart[job.id]
        self._wait(job, now, now)

    def forget_shelved(self, before: float) -> None:
        """Forget the jobs that nobody came for since a moment."""
        for row in self.apart():
            if isinstance(row, Shelved) and row.state is not State.HELD and row.at < before:
                del self.rows[row.job.id], self._apart[row.job.id]
                self.history.pop(row.job.id, None)

    def _return(self, lease: Lease, cause: Cause, after_s: float, error: str = "") -> None:
        """Let a job wait again, unless somebody cancelled it while it ran."""
        if lease.job.id in self.cancelling:
            self._shelve(lease, State.CANCELLED, "", "", failed=cause is Cause.RETRIED, crashed=cause is Cause.CRASHED)
        else:
            self._put_back(lease, cause, after_s, error)

    def _put_back(self, lease: Lease, cause: Cause, after_s: float, error: str = "") -> None:
        job, now = lease.job, self.clock.now()
        self.limited.ended((job.id,))
        self.rows[job.id] = job
        del self._apart[job.id]
        self.history[job.id] = History(
            lease.run, lease.failures + (cause is Cause.RETRIED), lease.crashes + (cause is Cause.CRASHED), error=error
        )
        self._wait(job, now + after_s, now)

    def _wait(self, job: Job, ready_at: float, now: float) -> None:
        line = self.line(job.queue)
        line.add(1, len(job.payload))
        self._stand(job, ready_at, now)

    def _shelve(self, lease: Lease, state: State, reason: str, error: str, *, failed: bool = False, crashed: bool = False) -> None:
        self.limited.ended((lease.job.id,))
        self.rows[lease.job.id] = Shelved(lease.job, state, self.clock.now())
        self.cancelling.discard(lease.job.id)
        self.history[lease.job.id] = History(lease.run, lease.failures + failed, lease.crashes + crashed, reason, error)

    def _crash(self, lease: Lease, terms: Terms) -> None:
        if lease.job.id in self.cancelling:
            self._shelve(lease, State.CANCELLED, "", "", crashed=True)
        elif lease.crashes + 1 >= terms.max_crashes.get(lease.job.handler, terms.settings.max_crashes):
            self._shelve(lease, State.DEAD, "worker_lost", f"its process died {lease.crashes + 1} times under it", crashed=True)
        else:
            self._put_back(lease, Cause.CRASHED, 0.0)

    def _held_by(self, holder: int) -> list[Run]:
        return [row for row in self.apart() if isinstance(row, Run) and row.holder == holder]

    def _remember(self, submission: Submission, settings: Settings) -> None:
        until = self.clock.now() + settings.receipts_s
        self.receipts[submission.key] = (until, submission.digest, submission.jobs[0].id, len(submission.jobs))
        self.receipts.move_to_end(submission.key)
        while len(self.receipts) > settings.receipts:
            self.receipts.popitem(last=False)
