"""What the memory store keeps, apart from who asks: several holders can share one ledger, as processes share a file."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from random import Random

import msgspec

from cabrank.block import Block, Leases, needed_by
from cabrank.clock import Clock
from cabrank.errors import UniqueTaken
from cabrank.job import Job, Lease, Progress, Settlement, new_prefix, text_id
from cabrank.settings import Settings
from cabrank.states import Cause, State, after
from cabrank.stores.contract import ID_BLOCK, REPLACED, STORED, Admission, Submission, Terms, Verdict
from cabrank.stores.memory.held import Held, Holder, Ran, run_of, runs_of
from cabrank.stores.memory.kept import Kept
from cabrank.stores.memory.line import Line
from cabrank.stores.memory.lines import Lines
from cabrank.stores.memory.rows import NEW, History, Row, Run, Shelved, crashed, ended
from cabrank.stores.memory.ticks import Ticks
from cabrank.stores.memory.unique import Uniques

Refusal = Callable[[Mapping[str, tuple[int, int]], Job | None], Admission | None]


def _is_limited(job: Job) -> bool:
    return job.limit_key is not None


_id, _queue = attrgetter("id"), attrgetter("queue")
SWEEP_S = 60.0  # how often jobs that nobody came for are looked at


class Ledger:
    """Jobs in the place of their state: waiting in a line, running with a holder, or shelved; receipts by key.

    Every change of a job's state goes through one of the methods here.
    """

    def __init__(self, clock: Clock, rng: Random | None = None) -> None:
        self.clock = clock
        self.prefix = new_prefix(rng or Random())
        self.waiting: dict[int, Job] = {}
        """Jobs in line, but for those that stand there in blocks."""
        self.shelved: dict[int, Shelved] = {}
        self.history: dict[int, History] = {}
        self.created: dict[int, float] = {}
        """When jobs were stored that wait or are shelved, but for those that wait in blocks."""
        self.progress: dict[int, Progress] = {}
        """How far those are that run and have told."""
        self.lines: dict[str, Line] = {}
        self.limited = Lines(self.still_waits)
        """The jobs that stand in the lines of their limits instead; their queue's line counts them all the same."""
        self.uniques = Uniques(self._state_of, debounce=self._debounce, replace=self._replace)
        self.ticks = Ticks()
        self.receipts: OrderedDict[str, tuple[float, bytes, int, int]] = OrderedDict()
        self.holders: dict[int, Holder] = {}
        self.watchers: list[Callable[[int], None]] = []
        self.kept: Kept | None = None
        self.cancelling: dict[int, float] = {}
        """Running jobs that somebody cancelled, and when; their holders are told with their next turns."""
        self.paused: set[str] = set()
        """Queues that somebody paused."""
        self.stale = 0
        """Jobs that were cancelled while they waited and still stand in line."""
        self._keep_dead_s = 0.0
        self._aging_s: float | None = None
        self._sweep_at = 0.0
        self._next_id = 1
        self._next_holder = 1

    # --------------------------------------------------------------------------------------------------------- holders

    def register(self, terms: Terms) -> int:
        """Count a holder in."""
        if self.kept is None:
            settings = terms.settings
            self._keep_dead_s, self._aging_s = settings.keep_dead_s, settings.aging_s
            self.kept = Kept(jobs=settings.keep_done_jobs, size=settings.keep_done_bytes)
        holder, self._next_holder = self._next_holder, self._next_holder + 1
        self.holders[holder] = Holder(terms)
        return holder

    def leave(self, holder: int) -> None:
        """Count a holder out; what it still holds is given back, without a crash."""
        left = self.holders.pop(holder, None)
        if left is not None:
            for run in runs_of(holder, left):
                self._return(run, Settlement(run.lease.job.id, run.lease.run, Cause.RELEASED), self.clock.now())
            self.tell(holder)

    def take_back_expired(self, terms: Terms) -> list[Lease]:
        """Make the jobs of holders that are dead or silent ready again, one crash more behind them.

        What comes back are the last runs of those that have crashed too often, as who found that has it in its `terms`, and are dead.
        """
        now = self.clock.monotonic()
        if now >= self._sweep_at and self.kept is not None:
            self._sweep_at = now + SWEEP_S
            self.forget_shelved(self.clock.now() - self._keep_dead_s)
            self.limited.prune(now)
            self.uniques.prune()
            self.kept.prune(self.clock.now())
        given_up: list[Lease] = []
        for number, holder in [(n, h) for n, h in self.holders.items() if h.expires_at <= now]:
            del self.holders[number]
            given_up += [run.lease for run in runs_of(number, holder) if self._crash(run, terms)]
            self.tell(number)
        return given_up

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
            found = self.lines[queue] = Line(self._aging_s)
        return found

    def judge(self, submission: Submission, settings: Settings, refusal: Refusal, before: Admission | None = None) -> Admission:
        """What is to become of a submission. Its room is counted in if it is to be stored.

        `refusal` says which bound refuses jobs that need so much, and take the place of one that waits. `before` is the refusal of one
        that came before it for the same queue: it is refused too, so that nobody is overtaken.
        """
        if submission.key:
            receipt = self.receipts.get(submission.key)
            if receipt is not None and receipt[0] > self.clock.now():
                _, digest, first_id, count = receipt
                return Admission(Verdict.REPEATED if digest == submission.digest else Verdict.KEY_REUSED, first_id, count)
        unique, replaced = submission.unique, None
        if unique:
            there = self.uniques.conflict(submission)
            if there is not None:
                self._remember(submission, settings, there.first_id)
                return there
            replaced = self.uniques.replaceable(submission)
        if not submission.has_room:
            if before is not None:
                return before
            needed = needed_by(submission.jobs)
            refused = refusal(needed, None if replaced is None else self.waiting[replaced])
            if refused is not None:
                return refused
            for queue, (jobs, size) in needed.items():
                self.line(queue).add(jobs, size)
        self._remember(submission, settings, submission.jobs[0].id if submission.key else 0)
        return self.uniques.admit(submission, replaced) if unique else STORED

    def add(self, jobs: Sequence[Job], now: float) -> None:
        """Put new jobs, whose room is counted in, into their lines."""
        if isinstance(jobs, Block):
            jobs.created_at = now
            self.line(jobs.queue).extend(jobs, now)
            return
        self.created.update(dict.fromkeys(map(_id, jobs), now))
        self.waiting.update(zip(map(_id, jobs), jobs, strict=True))
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
        self.waiting[job.id] = limited
        self.limited.put(limited, 0.0, self.clock.now())

    def _stand(self, job: Job, ready_at: float, now: float) -> None:
        if job.limit_key is None:
            self.line(job.queue).put_back(job, ready_at, now)
        else:
            self.limited.put(job, max(ready_at, now), now)

    def lease(self, job: Job, holder: int, now: float) -> Lease:
        """Turn a waiting job into a running one, the next run of it."""
        self.lines[job.queue].add(-1, -len(job.payload))
        del self.waiting[job.id]
        past = self.history.pop(job.id, NEW) if self.history else NEW
        lease = Lease(job, past.run + 1, past.failures, past.crashes)
        run = Run(lease, holder, self.created.pop(job.id, 0.0), now, past.failed)
        self.holders[holder].runs.setdefault(lease.run, Held()).add(run)
        return lease

    def lease_block(self, block: Block, holder: int, now: float) -> Leases:
        """Turn the waiting jobs of a block into running ones."""
        block.started_at = now
        self.lines[block.queue].add(-len(block), -block.size)
        self.holders[holder].runs[1].add_block(block)
        return Leases(block)

    # ------------------------------------------------------------------------------------------------------- settlement

    def finish(self, holder: int, run: int, ids: Sequence[int]) -> tuple[list[Ran], Sequence[int]]:
        """Record runs of a holder that returned. What is done now, and the ids for which nothing changed."""
        held = self.holders[holder].runs.get(run)
        ran, lost = (list[Ran](), ids) if held is None else held.pop_all(ids)
        if self.cancelling or self.progress:
            for id in (id for done, _ in ran for id in done):
                self.cancelling.pop(id, None)
                self.progress.pop(id, None)
        if self.limited:
            self.limited.ended(id for done, _ in ran for id in done)
        return ran, lost

    def settle(self, holder: int, settlement: Settlement, now: float) -> bool:
        """Record what became of a run that did not return. False: it was not the job's running one any more; nothing is changed."""
        held = self.holders[holder].runs.get(settlement.run)
        ran = None if held is None else held.pop(settlement.id)
        if ran is None:
            return False
        self._become(run_of(settlement.id, ran, holder), settlement, now)
        return True

    def told(self, progress: Sequence[Progress]) -> None:
        """Keep how far runs are; of those that are over it is dropped."""
        holders = self.holders.values()
        self.progress.update((one.id, one) for one in progress if any(one.id in holder.runs.get(one.run, ()) for holder in holders))

    # ------------------------------------------------------------------------------------------------------- single jobs

    def find(self, id: int) -> Row | None:
        """The job of that id, in the state that it is in; None if it is done or unknown."""
        found: Row | None = self.waiting.get(id) or self.shelved.get(id)
        if found is None:
            found = next((job for line in self.lines.values() if (job := line.find(id)) is not None), None)
        return self.running(id) if found is None else found

    def running(self, id: int) -> Run | None:
        """The job of that id, if it runs."""
        for number, holder in self.holders.items():
            for held in holder.runs.values():
                if (ran := held.get(id)) is not None:
                    return run_of(id, ran, number)
        return None

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Every job that is not done, with its id."""
        yield from self.waiting.items()
        yield from self.shelved.items()
        for block in (block for line in self.lines.values() for block in line.blocks()):
            yield from zip(block.ids, block, strict=True)
        for number, holder in self.holders.items():
            yield from ((run.lease.job.id, run) for run in runs_of(number, holder))

    def created_at(self, id: int) -> float:
        """When a job that does not run was stored."""
        return self.created.get(id) or max((line.created_at(id) for line in self.lines.values()), default=0.0)

    def cancel_waiting(self, id: int) -> bool:
        """Take a waiting job out of its line. False: it does not wait."""
        job = self.waiting.pop(id, None)
        if job is not None:
            self.stale += 1  # it comes up once more, and is no longer wanted then
        else:
            created_at = self.created_at(id)
            job = next((found for line in self.lines.values() if (found := line.withdraw(id)) is not None), None)
            if job is not None:
                self.created[id] = created_at
        if job is None:
            return False
        self.line(job.queue).add(-1, -len(job.payload))
        self.shelved[id] = Shelved(job, State.CANCELLED, self.clock.now())
        return True

    def still_waits(self, job: Job) -> bool:
        """Whether a job that came up in its line is still wanted. False once for each that was cancelled while it waited."""
        waits = self.waiting.get(job.id) is job
        self.stale -= not waits
        return waits

    def unshelve(self, row: Shelved) -> None:
        """Let a job wait again, its failures and crashes counted anew but its runs counted on, and the errors kept.

        Raises:
            UniqueTaken: an unfinished job has its unique key.
        """
        now, id = self.clock.now(), row.job.id
        other = self.uniques.take_again(row.job)
        if other is not None:
            raise UniqueTaken(text_id(self.prefix, id), row.job.unique, text_id(self.prefix, other))
        job = msgspec.structs.replace(row.job, due_at=now)  # another object: the old one may still stand in line
        past = self.history.get(id, NEW)
        self.history[id] = History(past.run, failed=past.failed, started_at=past.started_at, changed_at=now)
        del self.shelved[id]
        self._wait(job, now, now)

    def forget_shelved(self, before: float) -> None:
        """Forget the jobs that nobody came for since a moment."""
        for id, row in list(self.shelved.items()):
            if row.state is not State.HELD and row.at < before:
                self.forget(id)

    def forget(self, id: int) -> None:
        """Forget a shelved job."""
        del self.shelved[id]
        self.history.pop(id, None)
        self.created.pop(id, None)

    def _become(self, run: Run, settlement: Settlement, now: float) -> None:
        state = after(State.RUNNING, settlement.cause)
        if state is State.WAITING:
            self._return(run, settlement, now)
        else:
            self._shelve(run, state, settlement, now)

    def _return(self, run: Run, settlement: Settlement, now: float) -> None:
        """Let a job wait again, unless somebody cancelled it while it ran."""
        if run.lease.job.id in self.cancelling:
            self._shelve(run, State.CANCELLED, settlement, now)
        else:
            self._put_back(run, settlement, now)

    def _put_back(self, run: Run, settlement: Settlement, now: float) -> None:
        job = msgspec.structs.replace(run.lease.job, due_at=now + settlement.after_s)
        self._end(run, settlement, now)
        self._wait(job, now + settlement.after_s, now)

    def _wait(self, job: Job, ready_at: float, now: float) -> None:
        self.waiting[job.id] = job
        line = self.line(job.queue)
        line.add(1, len(job.payload))
        self._stand(job, ready_at, now)

    def _shelve(self, run: Run, state: State, settlement: Settlement, now: float) -> None:
        self.shelved[run.lease.job.id] = Shelved(run.lease.job, state, now)
        self.cancelling.pop(run.lease.job.id, None)
        self._end(run, settlement, now)

    def _end(self, run: Run, settlement: Settlement, now: float) -> None:
        """What a job has behind it when a run of it is over and it is not done."""
        id = run.lease.job.id
        self.limited.ended((id,))
        self.progress.pop(id, None)
        self.created[id] = run.created_at
        self.history[id] = ended(run, settlement, now)

    def _crash(self, run: Run, terms: Terms) -> bool:
        """Whether its job is dead because of that."""
        settlement = crashed(run, terms, cancelling=run.lease.job.id in self.cancelling)
        self._become(run, settlement, self.clock.now())
        return settlement.cause is Cause.WORKER_LOST

    def _state_of(self, id: int) -> State | None:
        row = self.find(id)
        if isinstance(row, Shelved):
            return row.state
        return None if row is None else State.RUNNING if isinstance(row, Run) else State.WAITING

    def _debounce(self, id: int, due_at: float) -> None:
        job, now = self.waiting[id], self.clock.now()
        moved = msgspec.structs.replace(job, due_at=max(due_at, now))  # the old one still stands in line
        self.stale += 1
        self.waiting[id] = moved
        self._stand(moved, moved.due_at, now)

    def _replace(self, id: int) -> None:
        self.cancel_waiting(id)
        self.history[id] = msgspec.structs.replace(self.history.get(id, NEW), reason=REPLACED)

    def _remember(self, submission: Submission, settings: Settings, first_id: int) -> None:
        if not submission.key:
            return
        until = self.clock.now() + settings.receipts_s
        self.receipts[submission.key] = (until, submission.digest, first_id, len(submission.jobs))
        self.receipts.move_to_end(submission.key)
        while len(self.receipts) > settings.receipts:
            self.receipts.popitem(last=False)
