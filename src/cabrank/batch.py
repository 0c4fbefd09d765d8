"""Batch handlers: how many jobs one call takes, what it says of each, and what each gets of the call's outcome."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import msgspec

from cabrank.errors import SettingError, WrongAnswer
from cabrank.job import Job, Lease
from cabrank.policy import RETURNED_NONE, Cancelled, GiveUp, Interrupted, Outcome, Raised, Returned, TryAgain, traced

BATCH_LIMIT = 10_000  # jobs of a batch: no turn of a store brings more
BATCH_BYTES = 8 * 1024 * 1024  # of payload in a batch, where nothing else is said: what a turn of a store brings


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs one call of a batch handler takes: at most `jobs` with at most `bytes` of payload, but always one.

    Where fewer are ready, the call is held back for `wait_s` seconds at most, for more to come.
    """

    jobs: int = 256
    wait_s: float = 0.2
    bytes: int = BATCH_BYTES

    def __post_init__(self) -> None:
        """Refuse what cannot be meant; a program need not be type-checked."""
        jobs, wait_s, size = (getattr(self, name) for name in self.__struct_fields__)
        if not (isinstance(jobs, int) and 1 <= jobs <= BATCH_LIMIT):
            raise SettingError(f"Batch.jobs is a whole number from 1 to {BATCH_LIMIT:,}, not {jobs!r}")
        if not (isinstance(wait_s, int | float) and 0 <= wait_s < math.inf):
            raise SettingError(f"Batch.wait_s is a number of seconds from 0, not {wait_s!r}")
        if not (isinstance(size, int) and size >= 1):
            raise SettingError(f"Batch.bytes is a number of bytes from 1, not {size!r}")


class Failure(msgspec.Struct, frozen=True):
    """What a batch handler returns for an item that failed, where it returns None for one that went well.

    `error` is what the handler would have raised for this item alone, or a text that says why; so `Failure(Snooze(for_s=60))` is no
    failure and only later. The job is tried again as its `Retry` says, after `after_s` seconds if given; with `retry=False` it
    is dead at once.
    """

    error: BaseException | str
    retry: bool = True
    after_s: float | None = None

    @property
    def raised(self) -> BaseException:
        """The error as the outcome of the item's run."""
        if isinstance(self.error, BaseException) and self.retry and self.after_s is None:
            return self.error
        reason = str(self.error)
        error = TryAgain(reason, after_s=self.after_s) if self.retry else GiveUp(reason)
        error.__cause__ = self.error if isinstance(self.error, BaseException) else None
        return error


Answer = Sequence[Failure | None] | None
"""What a batch handler returns: None if all went well, else one entry for each item."""


def answers(value: object, count: int) -> Sequence[Failure | None] | None:
    """What a call with `count` items said of each; None if all went well.

    Raises:
        WrongAnswer: it is no such thing.
    """
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise WrongAnswer(f"a batch handler returns None or a list with one None or Failure for each item, not {type(value).__name__}")
    said = cast("Sequence[Failure | None]", value)
    if len(said) != count:
        raise WrongAnswer(f"a batch handler returned {len(said)} entries for {count} items: return one None or Failure for each, or None")
    for one in said:
        if one is not None and not isinstance(one, Failure):  # pyright: ignore[reportUnnecessaryIsInstance] -- it is the user's
            raise WrongAnswer(f"an entry of what a batch handler returned is {type(one).__name__}: it is None or a Failure")
    return said


class Together(Lease, frozen=True, gc=True):
    """Several leases that are run by one call. As a lease it is that of the call: its one argument are all the items.

    Its job has the id of the first and the nearest deadline of all, it has failed as often as the one that failed most.
    """

    leases: Sequence[Lease] = ()
    cancelled: set[tuple[int, int]] = msgspec.field(default_factory=set[tuple[int, int]])
    """The fences of those that somebody cancelled while it ran."""

    def outcomes(self, outcome: Outcome) -> Sequence[Outcome]:
        """What each lease gets of the call's outcome.

        The call ends for all if one of them is cancelled; the others are handed back then.
        """
        match outcome:
            case Returned(value=value):
                try:
                    said = answers(value, len(self.leases))
                except WrongAnswer as error:
                    return [Raised(error)] * len(self.leases)
                if said is None:
                    return [RETURNED_NONE] * len(self.leases)
                return [RETURNED_NONE if one is None else Raised(one.raised) for one in said]
            case Raised(error=error, trace=trace):  # the traceback is made once, and not for each
                return [Raised(error, trace or traced(error))] * len(self.leases)
            case Cancelled():
                return [outcome if (lease.job.id, lease.run) in self.cancelled else Interrupted() for lease in self.leases]
            case _:
                return [outcome] * len(self.leases)


def together(leases: Sequence[Lease], items: list[object] | None = None) -> Together:
    """The call of these leases, of one handler, with `items`."""
    job, deadlines = leases[0].job, [lease.job.deadline_at for lease in leases if lease.job.deadline_at]
    called = Job(
        id=job.id,
        handler=job.handler,
        queue=job.queue,
        payload=b"",
        args=None if items is None else (items,),
        deadline_at=min(deadlines, default=0.0),
    )
    return Together(called, leases[0].run, max(lease.failures for lease in leases), leases=leases)


def reaches(lease: Lease, fence: tuple[int, int]) -> bool:
    """Whether a cancel of `fence` is meant for the call of `lease`; where others are in it, it is noted there."""
    if not isinstance(lease, Together):
        return (lease.job.id, lease.run) == fence
    found = any((one.job.id, one.run) == fence for one in lease.leases)
    if found:
        lease.cancelled.add(fence)
    return found


def leases_of(lease: Lease) -> Sequence[Lease]:
    """The leases that are run by the call of `lease`: itself, if it is alone."""
    return lease.leases if isinstance(lease, Together) else (lease,)
