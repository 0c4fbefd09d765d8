"""What goes to the store together, and what its answer means to whoever submitted."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from operator import attrgetter

from cabrank.block import size_of
from cabrank.errors import CabrankError, DiskFull, KeyReused, NeverFits, QueueFull, SettingError
from cabrank.job import Job
from cabrank.queue import RUNNING_IN
from cabrank.settings import Bound, Overflow, Settings
from cabrank.stores.contract import TURN_BYTES, Admission, Verdict

queue_of = attrgetter("queue")

PER_QUEUE = ("max_workers", "max_queue", "max_queue_bytes", "max_queue_age_s", "overflow")  # the settings that may be given by queue
OWN_ADVICE = "a job of this queue cannot wait for room that only its own pool can make; give it more room or submit from outside"
REFUSED_ADVICE = "try again later; it refuses rather than lets wait, as its `overflow` says"


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


def never_fits(jobs: Sequence[Job], settings: Settings, default: Bound) -> NeverFits | None:
    """Why these jobs can never be admitted together, if so."""
    for queue, its in groupby(sorted(jobs, key=queue_of), key=queue_of):
        sizes = [len(job.payload) for job in its]
        bound = settings.most_at_once(queue, default)
        if len(sizes) > bound.jobs or sum(sizes) > bound.bytes:
            return NeverFits(
                f"{len(sizes):,} jobs with {sum(sizes):,} bytes cannot be stored together: "
                f"queue {queue!r} takes {bound.jobs:,} jobs and {bound.bytes:,} bytes in all; send them in parts"
            )
    return None


def may_wait(queue: str, settings: Settings) -> bool:
    """Whether who submits to `queue` may wait for room: not for what only its own pool can make, nor where the queue refuses."""
    return RUNNING_IN.get() != queue and settings.overflow_of(queue) is not Overflow.REFUSE


def check_queue_names(settings: Settings, known: Collection[str]) -> None:
    """Refuse a value for a queue that is not there: it would be ignored, and the bound that was meant would not hold.

    Raises:
        SettingError: a setting names one.
    """
    for name in PER_QUEUE:
        values = getattr(settings, name)
        strange = [] if values is None or isinstance(values, int | float | str | tuple) else sorted(set(values) - set(known))
        if strange:
            raise SettingError(f"{name} names a queue {strange[0]!r} that this app does not have; there are {', '.join(sorted(known))}")


def answer(future: asyncio.Future[Admission], outcome: Admission | CabrankError) -> None:
    """Let `future` have the answer to a submission, if anybody still waits for it."""
    if future.done():
        return
    if isinstance(outcome, CabrankError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def pass_on(settings: Settings, stored: asyncio.Future[None], answered: asyncio.Future[Admission]) -> None:
    """Say whether it was stored as the answer has it."""
    try:
        accepted(answered.result(), "", settings)
    except CabrankError as error:
        stored.set_exception(error)
    else:
        stored.set_result(None)


def accepted(admission: Admission, key: str, settings: Settings) -> int:
    """The id that the submission got before, 0 if it is new."""
    match admission.verdict:
        case Verdict.STORED:
            return 0
        case Verdict.REPEATED | Verdict.UNIQUE:
            return admission.first_id
        case Verdict.KEY_REUSED:
            raise KeyReused(key)
        case Verdict.FULL:
            if RUNNING_IN.get() == admission.queue:
                raise QueueFull(admission.queue, admission.bound, OWN_ADVICE)
            refuses = settings.overflow_of(admission.queue) is Overflow.REFUSE
            raise QueueFull(admission.queue, admission.bound, *([REFUSED_ADVICE] if refuses else []))
        case Verdict.NO_SPACE:
            raise DiskFull(admission.bound)
