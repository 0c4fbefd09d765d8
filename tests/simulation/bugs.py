"""Bugs to be planted into the real code: in the store, the turns, limits and batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from unittest.mock import patch

import msgspec

from cabrank import Dispatcher
from cabrank.batch import Together
from cabrank.committer import Committer
from cabrank.gathering import Answered
from cabrank.job import Lease, Progress, Settlement
from cabrank.policy import RETURNED_NONE, Interrupted, Limit, Outcome
from cabrank.policy import Returned as Done
from cabrank.pool import WorkerPool
from cabrank.queue import JobQueue, Line
from cabrank.settings import Settings
from cabrank.states import Cause
from cabrank.stores.contract import STORED, Admission, Returned, Submission, Turn, Want
from cabrank.stores.memory import Ledger, MemoryStore
from cabrank.stores.memory.held import Ran
from cabrank.stores.memory.ledger import Refusal
from cabrank.stores.memory.lines import Lines
from cabrank.stores.memory.rows import Run
from tests.simulation.home import Kind


class Bug(msgspec.Struct, frozen=True):
    """What is wrong, in words, and how to make it so."""

    name: str
    plant: Callable[[], AbstractContextManager[object]]
    store: Kind = Kind.MEMORY
    """What it is looked for in."""
    first_seed: int = 0
    """No seed before it catches the bug: they are left out."""


def _no_fence() -> AbstractContextManager[object]:
    """A run that returns makes the job done, whoever holds its lease by then."""
    finish = Ledger.finish

    def finish_any(self: Ledger, holder: int, run: int, ids: Sequence[int]) -> tuple[list[Ran], Sequence[int]]:
        ran: list[Ran] = []
        lost: list[int] = []
        for id in ids:
            found = self.running(id)
            its, gone = finish(self, holder, run, (id,)) if found is None else finish(self, found.holder, found.lease.run, (id,))
            ran += its
            lost += gone
        return ran, lost

    return patch.object(Ledger, "finish", finish_any)


def _ack_before_commit() -> AbstractContextManager[object]:
    """What comes without a key is acknowledged when it is on its way."""
    offer = Committer.offer

    def offer_and_answer(
        self: Committer, submission: Submission, answered: Answered, *, patient: bool, size: int, wanted: Callable[[], bool] = lambda: True
    ) -> None:
        if not submission.key:
            answered(STORED)
        offer(self, submission, _ignore if not submission.key else answered, patient=patient, size=size, wanted=wanted)

    return patch.object(Committer, "offer", offer_and_answer)


def _ignore(*_said: object) -> None:
    pass


def _swallow() -> AbstractContextManager[object]:
    """A worker that is stopped leaves without handing its job back."""
    report = Dispatcher._report

    def report_unless_interrupted(self: Dispatcher, lease: Lease, outcome: Outcome) -> None:
        if not isinstance(outcome, Interrupted):
            report(self, lease, outcome)

    return patch.object(Dispatcher, "_report", report_unless_interrupted)


def _lost_wake_up() -> AbstractContextManager[object]:
    """Between looking at the queue and standing in the rank a job may come, and nobody is woken for it."""
    stand_in_rank = WorkerPool._stand_in_rank

    async def stand_in_rank_late(self: WorkerPool) -> None:
        await asyncio.sleep(0)
        await stand_in_rank(self)

    return patch.object(WorkerPool, "_stand_in_rank", stand_in_rank_late)


def _unbounded() -> AbstractContextManager[object]:
    """Every submission finds room."""
    judge = Ledger.judge

    def judge_full_as_stored(
        self: Ledger, submission: Submission, settings: Settings, refusal: Refusal, before: Admission | None = None
    ) -> Admission:
        del refusal
        return judge(self, submission, settings, lambda *_: None, before)

    return patch.object(Ledger, "judge", judge_full_as_stored)


def _turn_done_twice() -> AbstractContextManager[object]:
    """A turn whose reply was lost is done once more when it is sent again."""
    turn = MemoryStore.turn

    async def turn_again(
        self: MemoryStore,
        number: int,
        *,
        new: Sequence[Submission],
        settlements: Sequence[Settlement],
        want: Mapping[str, Want],
        returned: Returned,
        progress: Sequence[Progress],
    ) -> Turn:
        self._last = None
        return await turn(self, number, new=new, settlements=settlements, want=want, returned=returned, progress=progress)

    return patch.object(MemoryStore, "turn", turn_again)


def _suspect_in_company() -> AbstractContextManager[object]:
    """Every pool says that nothing else runs in its process."""
    want = JobQueue.want

    def want_as_if_alone(self: JobQueue, *, idle: int, workers: int, alone: bool) -> Want:
        return want(self, idle=idle, workers=workers, alone=True)

    return patch.object(JobQueue, "want", want_as_if_alone)


def _slot_not_freed() -> AbstractContextManager[object]:
    """A limited job that is tried again goes on counting as one that runs."""
    ended, put_back = Lines.ended, Ledger._put_back

    def put_back_as_running(self: Ledger, run: Run, settlement: Settlement, now: float) -> None:
        with patch.object(Lines, "ended", _ignore if settlement.cause is Cause.RETRIED else ended):
            put_back(self, run, settlement, now)

    return patch.object(Ledger, "_put_back", put_back_as_running)


def _limit_does_not_count() -> AbstractContextManager[object]:
    """A limit is judged as if nothing of its key ran."""
    judge = Limit.open

    def judge_as_first(self: Limit, *, running: int, full_at: float, now: float, most: int) -> int:
        del running
        return judge(self, running=0, full_at=full_at, now=now, most=most)

    return patch.object(Limit, "open", judge_as_first)


def _starts_cost_nothing() -> AbstractContextManager[object]:
    """The bucket of a rate is always full."""

    def spend_nothing(self: Limit, *, full_at: float, now: float, jobs: int) -> float:
        del self, now, jobs
        return full_at

    return patch.object(Limit, "spend", spend_nothing)


def _failures_not_read() -> AbstractContextManager[object]:
    """A batch that returned is taken for one that went well for all."""
    outcomes = Together.outcomes

    def outcomes_as_one(self: Together, outcome: Outcome) -> Sequence[Outcome]:
        return [RETURNED_NONE] * len(self.leases) if isinstance(outcome, Done) else outcomes(self, outcome)

    return patch.object(Together, "outcomes", outcomes_as_one)


def _one_left_out() -> AbstractContextManager[object]:
    """The last of a full batch is taken out of its line and runs nowhere."""
    take = Line.take_batch

    def take_and_drop(self: Line) -> list[Lease]:
        batch = take(self)
        return batch[:-1] if len(batch) == self.batch.jobs > 1 else batch

    return patch.object(Line, "take_batch", take_and_drop)


def _batch_not_looked_after() -> AbstractContextManager[object]:
    """A worker that waited for a full batch and got none forgets those that are there."""
    return patch.object(JobQueue, "put_back", _ignore)


BUGS = (
    Bug("no fence", _no_fence),
    Bug("ack before commit", _ack_before_commit),
    Bug("a quitting worker swallows its job", _swallow),
    Bug("a lost wake-up", _lost_wake_up),
    Bug("an unbounded queue", _unbounded),
    Bug("a turn sent again is done again", _turn_done_twice),
    Bug("a suspect runs beside others", _suspect_in_company),
    Bug("a retry keeps its place in a limit", _slot_not_freed),
    Bug("a limit does not count what runs", _limit_does_not_count),
    Bug("a start costs no rate", _starts_cost_nothing),
    Bug("failures of a batch are not read", _failures_not_read),
    Bug("a batch leaves one out", _one_left_out),
    Bug("a batch that is not full is forgotten", _batch_not_looked_after),
)
