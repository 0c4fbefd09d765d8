"""What follows from the outcome of a run: pure decisions, no clock, no store."""

from __future__ import annotations

import math
from random import Random
from typing import assert_never

import msgspec

from cabrank.errors import SettingError
from cabrank.states import Cause


def _are_errors(types: object) -> bool:
    """Whether `isinstance` takes it as a tuple of exception types: a program need not be type-checked."""
    if not isinstance(types, tuple):
        return False
    return all(isinstance(one, type) and issubclass(one, BaseException) for one in types)  # pyright: ignore[reportUnknownVariableType]


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often a failing job is tried, and how long it waits in between.

    The n-th failure waits a random time between 0 and `base_s * factor ** (n - 1)`, at most `cap_s` ("full jitter", Brooker,
    *Exponential Backoff And Jitter*, 2015): a fleet that failed together does not come back together. Errors named in
    `unless` are not retried.
    """

    attempts: int = 10
    base_s: float = 1.0
    factor: float = 3.0
    cap_s: float = 3600.0
    unless: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.attempts < 1:
            raise SettingError(f"Retry.attempts must be at least 1, not {self.attempts}: 1 means no second try")
        if self.base_s < 0 or self.cap_s < 0 or self.factor < 1:
            raise SettingError("Retry.base_s and cap_s must not be negative, factor must be at least 1")
        if not _are_errors(self.unless):
            raise SettingError(f"Retry.unless is a tuple of exception types, as in (ValueError,), not {self.unless!r}")

    def delay_s(self, failures: int, rng: Random) -> float:
        """How long a job waits after its n-th failure, in seconds."""
        try:
            longest_s = min(self.cap_s, self.base_s * self.factor ** (failures - 1))
        except OverflowError:
            longest_s = self.cap_s
        return rng.uniform(0.0, longest_s)


NO_RETRY = Retry(attempts=1)


def _duration(name: str, value: float) -> float:
    if not math.isfinite(value):  # a text or None is a TypeError here, which is as good a word
        raise ValueError(f"{name} is a finite number of seconds, not {value!r}")
    return max(0.0, value)


class TryAgain(Exception):
    """Raised by a handler: this run failed; try again, after `after_s` seconds if given, else as the policy says."""

    def __init__(self, reason: str = "", *, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = None if after_s is None else _duration("after_s", after_s)


class GiveUp(Exception):
    """Raised by a handler: trying again cannot help, so the job is dead at once."""


class Snooze(Exception):
    """Raised by a handler: not now, run it again in `for_s` seconds. Counts as no failure."""

    def __init__(self, *, for_s: float) -> None:
        self.for_s = _duration("for_s", for_s)
        super().__init__(f"for {for_s:g} s")


class Returned(msgspec.Struct, frozen=True, gc=False):
    """The handler returned `value`."""

    value: object


class Raised(msgspec.Struct, frozen=True):
    """The handler raised `error`, which may be anything."""

    error: BaseException


class TimedOut(msgspec.Struct, frozen=True):
    """The run was stopped after `after_s` seconds."""

    after_s: float


class Cancelled(msgspec.Struct, frozen=True):
    """Somebody cancelled the job while it ran, and it stopped."""


class Interrupted(msgspec.Struct, frozen=True):
    """The worker was closed while it ran the job; the job is handed back."""


class Unreadable(msgspec.Struct, frozen=True):
    """The payload does not decode to what the handler takes here, so nothing was run."""

    why: str


class Late(msgspec.Struct, frozen=True):
    """The job's deadline had passed, so nothing was run."""


Outcome = Returned | Raised | TimedOut | Cancelled | Interrupted | Unreadable | Late

RETURNED_NONE = Returned(None)


class Decision(msgspec.Struct, frozen=True):
    """What becomes of the job: `cause` leads to its next state, `after_s` is how long it waits there, `reason` one word for people."""

    cause: Cause
    after_s: float = 0.0
    reason: str = ""


def decide(outcome: Outcome, retry: Retry, failures: int, rng: Random) -> Decision:
    """What follows from `outcome`, for a job that had failed `failures` times before this run."""
    match outcome:
        case Returned():
            return Decision(Cause.RETURNED)
        case Raised(error=Snooze() as snooze):
            return Decision(Cause.SNOOZED, after_s=snooze.for_s)
        case Raised(error=GiveUp()):
            return Decision(Cause.GAVE_UP, reason="gave_up")
        case Raised(error=error):
            return _after_failure(error, retry, failures + 1, rng)
        case TimedOut():
            return _after_failure(None, retry, failures + 1, rng)
        case Cancelled():
            return Decision(Cause.CANCELLED)
        case Interrupted():
            return Decision(Cause.RELEASED)
        case Unreadable():
            return Decision(Cause.UNREADABLE)
        case Late():
            return Decision(Cause.DROPPED, reason="deadline")
        case _:
            assert_never(outcome)


def _after_failure(error: BaseException | None, retry: Retry, failures: int, rng: Random) -> Decision:
    if failures >= retry.attempts or isinstance(error, retry.unless):
        return Decision(Cause.GAVE_UP, reason="timed_out" if error is None else "failed")
    if isinstance(error, TryAgain) and error.after_s is not None:
        return Decision(Cause.RETRIED, after_s=error.after_s)
    return Decision(Cause.RETRIED, after_s=retry.delay_s(failures, rng))
