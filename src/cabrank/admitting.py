"""What goes to the store together, and what its answer means to whoever submitted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from operator import attrgetter

from cabrank.block import Block
from cabrank.errors import CabrankError, KeyReused, QueueFull
from cabrank.job import Job
from cabrank.queue import RUNNING_IN
from cabrank.settings import Bound
from cabrank.stores.contract import TURN_BYTES, Admission, Verdict

queue_of = attrgetter("queue")


def size_of(jobs: Sequence[Job]) -> int:
    """The bytes of their payloads."""
    if isinstance(jobs, Block):
        return jobs.size
    return len(jobs[0].payload) if len(jobs) == 1 else sum([len(job.payload) for job in jobs])


def parts_of(jobs: Sequence[Job], bound: Bound) -> Iterator[Sequence[Job]]:
    """The jobs in parts that fit into a turn and find room while others submit too, at least one job each."""
    size = min(TURN_BYTES, max(1, bound.bytes // 4))
    if size_of(jobs) <= size:
        yield jobs
        return
    first, taken = 0, 0
    for position, job in enumerate(jobs):
        taken += len(job.payload)
        if taken > size and position > first:
            yield jobs[first:position]
            first, taken = position, len(job.payload)
    yield jobs[first:]


def answer(future: asyncio.Future[Admission], outcome: Admission | CabrankError) -> None:
    """Let `future` have the answer to a submission, if anybody still waits for it."""
    if future.done():
        return
    if isinstance(outcome, CabrankError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def pass_on(stored: asyncio.Future[None], answered: asyncio.Future[Admission]) -> None:
    """Say whether it was stored as the answer has it."""
    try:
        accepted(answered.result(), "")
    except CabrankError as error:
        stored.set_exception(error)
    else:
        stored.set_result(None)


def accepted(admission: Admission, key: str) -> int:
    """The id that the submission got before, 0 if it is new."""
    match admission.verdict:
        case Verdict.STORED:
            return 0
        case Verdict.REPEATED | Verdict.UNIQUE:
            return admission.first_id
        case Verdict.KEY_REUSED:
            raise KeyReused(key)
        case Verdict.FULL:
            own = RUNNING_IN.get() == admission.queue
            advice = "a job of this queue cannot wait for room that only its own pool can make; give it more room or submit from outside"
            raise QueueFull(admission.queue, admission.bound, *([advice] if own else []))
