"""What a store should have, told in the plainest way: a dict of jobs, and the table of states. Slow, and easy to believe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from cabrank.job import Job, Lease, Settlement
from cabrank.states import Cause, State, after
from cabrank.stores.contract import SUSPECT_CRASHES, Admission, Submission, Tally, Verdict, Want


class Row(msgspec.Struct):
    """One job that is not done. `ready_at` is when it can be claimed, if it waits."""

    job: Job
    state: State = State.WAITING
    ready_at: float = 0.0
    run: int = 0
    failures: int = 0
    crashes: int = 0
    holder: int = 0
    cancelling: bool = False

    @property
    def rank(self) -> tuple[int, float]:
        """Its place in a claim, but for those of the same moment."""
        return self.job.priority, self.ready_at


class Model:
    """Jobs by id, and receipts by key."""

    def __init__(self, bound: int, max_crashes: int) -> None:
        self.rows: dict[int, Row] = {}
        self.done: set[int] = set()
        self.receipts: dict[str, tuple[bytes, int, int]] = {}
        self._bound = bound
        self._max_crashes = max_crashes

    # ------------------------------------------------------------------------------------------------------------- turns

    def admit(self, new: Sequence[Submission], now: float) -> list[tuple[Verdict, int, int]]:
        """What each submission is answered: verdict, first id and number of the jobs that were there before."""
        full: set[str] = set()
        answers: list[tuple[Verdict, int, int]] = []
        for submission in new:
            known = self.receipts.get(submission.key) if submission.key else None
            if known is not None:
                digest, first, count = known
                answers.append((Verdict.REPEATED if digest == submission.digest else Verdict.KEY_REUSED, first, count))
                continue
            queues = [job.queue for job in submission.jobs]
            before = not full.isdisjoint(queues)
            crowded = [queue for queue in queues if self._waiting(queue) + queues.count(queue) > self._bound]
            if before or crowded:
                full |= set() if before else set(crowded[:1])  # it stands in one line: that of the first queue without room
                answers.append((Verdict.FULL, 0, 0))
                continue
            for job in submission.jobs:
                self.rows[job.id] = Row(job, ready_at=max(now, job.due_at))
            if submission.key:
                self.receipts[submission.key] = submission.digest, submission.jobs[0].id, len(submission.jobs)
            answers.append((Verdict.STORED, 0, 0))
        return answers

    def settle(self, settlements: Sequence[Settlement], now: float) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
        """The fences of settlements that change nothing, and of those that would wait again and were cancelled."""
        lost: set[tuple[int, int]] = set()
        cancelled: set[tuple[int, int]] = set()
        for settlement in settlements:
            row, fence = self.rows.get(settlement.id), (settlement.id, settlement.run)
            if row is None or row.state is not State.RUNNING or row.run != settlement.run:
                lost.add(fence)
                continue
            row.failures += settlement.cause in {Cause.RETRIED, Cause.GAVE_UP}
            row.crashes += settlement.cause in {Cause.CRASHED, Cause.WORKER_LOST}
            state = after(State.RUNNING, settlement.cause)
            if state is State.WAITING and row.cancelling:
                state = State.CANCELLED
                cancelled.add(fence)
            if state is State.DONE:
                self.done.add(settlement.id)
                del self.rows[settlement.id]
                continue
            row.state, row.ready_at, row.cancelling = state, now + settlement.after_s, False
        return lost, cancelled

    def claimable(self, queue: str, want: Want, now: float) -> list[tuple[int, float]]:
        """The ranks of those that a claim must give, in order."""
        ready = sorted((row for row in self._ready(queue, now)), key=lambda row: row.rank)
        ranks: list[tuple[int, float]] = []
        for row in ready[: want.jobs]:
            if row.crashes >= SUSPECT_CRASHES:
                break
            ranks.append(row.rank)
        return ranks

    def tied(self, queue: str, now: float) -> bool:
        """Whether a suspect shares its rank with others, so that which of them is next is not promised."""
        suspects = {row.rank for row in self._ready(queue, now) if row.crashes >= SUSPECT_CRASHES}
        return any(row.rank in suspects and row.crashes < SUSPECT_CRASHES for row in self._ready(queue, now))

    def suspect_next(self, queue: str, now: float) -> bool:
        """Whether the next in line is a suspect."""
        first = min(self._ready(queue, now), key=lambda row: row.rank, default=None)
        return first is not None and first.crashes >= SUSPECT_CRASHES

    def lease(self, leases: Iterable[Lease], holder: int) -> None:
        """These are running now."""
        for lease in leases:
            row = self.rows[lease.job.id]
            assert row.state is State.WAITING, row
            row.run += 1
            assert (lease.run, lease.failures, lease.crashes) == (row.run, row.failures, row.crashes), (lease, row)
            assert lease.job.payload == row.job.payload
            row.state, row.holder = State.RUNNING, holder

    # ------------------------------------------------------------------------------------------------- people and misfortune

    def cancel(self, id: int) -> bool:
        """Whether there was something to cancel."""
        row = self.rows.get(id)
        if row is None or row.state not in {State.WAITING, State.RUNNING, State.HELD}:
            return False
        if row.state is State.RUNNING:
            row.cancelling = True
        else:
            row.state = State.CANCELLED
        return True

    def reopen(self, id: int, now: float) -> bool:
        """Whether it waits again."""
        row = self.rows.get(id)
        if row is None or row.state in {State.WAITING, State.RUNNING}:
            return False
        row.state, row.ready_at, row.failures, row.crashes = State.WAITING, now, 0, 0
        return True

    def leave(self, holder: int, now: float, *, crashed: bool) -> None:
        """A holder closes its store, or dies."""
        for row in self.rows.values():
            if row.state is State.RUNNING and row.holder == holder:
                row.crashes += crashed
                if row.cancelling:
                    row.state = State.CANCELLED
                elif crashed and row.crashes >= self._max_crashes:
                    row.state = State.DEAD
                else:
                    row.state, row.ready_at = State.WAITING, now
                row.cancelling = False

    # ------------------------------------------------------------------------------------------------------------- reckoning

    def tally(self, queue: str) -> Tally:
        """The jobs of a queue by state."""
        counted = [row for row in self.rows.values() if row.job.queue == queue]
        waiting = [row for row in counted if row.state is State.WAITING]
        return Tally(
            waiting=len(waiting),
            waiting_bytes=sum(len(row.job.payload) for row in waiting),
            running=sum(row.state is State.RUNNING for row in counted),
            dead=sum(row.state is State.DEAD for row in counted),
            held=sum(row.state is State.HELD for row in counted),
        )

    def states(self) -> Mapping[int, tuple[State, int, int, int]]:
        """State, run, failures and crashes of every job; of those that are done the state only."""
        return {id: (row.state, row.run, row.failures, row.crashes) for id, row in self.rows.items()}

    def _waiting(self, queue: str) -> int:
        return sum(row.state is State.WAITING and row.job.queue == queue for row in self.rows.values())

    def _ready(self, queue: str, now: float) -> list[Row]:
        return [row for row in self.rows.values() if row.state is State.WAITING and row.job.queue == queue and row.ready_at <= now]


def ranks(leases: Sequence[Lease], model: Model) -> list[tuple[int, float]]:
    """The ranks of what was leased, as they were before."""
    return [model.rows[lease.job.id].rank for lease in leases]


def answer(admission: Admission) -> tuple[Verdict, int, int]:
    """What an admission says, without its words."""
    return admission.verdict, admission.first_id, admission.count
