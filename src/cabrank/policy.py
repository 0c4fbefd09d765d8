"""What follows from the outcome of a run: pure decisions, no clock, no store."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from random import Random
from typing import Any, assert_never

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

    `attempts` are the runs that fail, the first one among them; one whose process died, that was handed back or that snoozed is none.
    The n-th failure waits a random time between 0 and `base_s * factor ** (n - 1)` seconds, at most `cap_s` ("full jitter", Brooker,
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
UNRECORDABLE = "unrecordable"


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs of a handler may run at once and how many may start in a second, over all processes of a store.

    `running` is a number of jobs. `per_s` is a number of starts: in any stretch of T seconds at most `burst + per_s * T` jobs
    start, so `burst` is what may start at once after a pause (default: a tenth of a second's worth, at least 1, so that a late
    wake-up costs nothing). `key` gets what the handler gets, without what is injected, and names an allowance of its own for
    each text or whole number that it returns; without it all jobs of the handler share one.

    A job that is held back waits in the store: it costs no failure and no worker.
    """

    running: int | None = None
    per_s: float | None = None
    burst: float | None = None
    key: Callable[..., str | int] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant; a program need not be type-checked."""
        running, per_s, burst, key = (getattr(self, name) for name in self.__struct_fields__)
        if running is None and per_s is None:
            raise SettingError("Limit needs running= (how many at once) or per_s= (how many start in a second), or both")
        if running is not None and not (isinstance(running, int) and running >= 1):
            raise SettingError(f"Limit.running is a whole number of jobs from 1, not {running!r}")
        if per_s is not None and not _is_number(per_s, above=0):
            raise SettingError(f"Limit.per_s is a number of starts a second above 0, not {per_s!r}")
        if burst is not None and (per_s is None or not _is_number(burst, above=0) or burst < 1):
            raise SettingError(f"Limit.burst goes with per_s and is a number of jobs from 1, not {burst!r}")
        if key is not None and not callable(key):
            raise SettingError(f"Limit.key is a function of the payload, as in lambda p: p.customer, not {key!r}")

    @property
    def capacity(self) -> float:
        """How many jobs may start at once after a pause, as far as the rate goes."""
        if self.per_s is None:
            return math.inf
        return max(1.0, self.per_s / 10) if self.burst is None else self.burst

    def open(self, *, running: int, full_at: float, now: float, most: int) -> int:
        """How many jobs, of at most `most`, may start now where `running` run. `full_at` is what `spend` said last, 0 before."""
        if self.running is not None:
            most = min(most, self.running - running)
        if self.per_s is not None:
            spent = max(0.0, self._sane(full_at, now) - now) * self.per_s
            most = min(most, math.floor(self.capacity - spent + ROUNDING))
        return max(0, most)

    def spend(self, *, full_at: float, now: float, jobs: int) -> float:
        """The moment at which everything will be allowed again, after so many jobs have started now."""
        return full_at if self.per_s is None else max(self._sane(full_at, now), now) + jobs / self.per_s

    def next_at(self, *, full_at: float, now: float) -> float:
        """The moment from which a job may start as far as the rate goes."""
        return now if self.per_s is None else self._sane(full_at, now) - (self.capacity - 1) / self.per_s

    def _sane(self, full_at: float, now: float) -> float:
        """`full_at`, unless it belongs to another clock: no allowance is ever more than empty."""
        assert self.per_s is not None  # noqa: S101 -- for the type checker
        return min(full_at, now + self.capacity / self.per_s)


ROUNDING = 1e-6  # of a job: the moment when a job may start is found by other sums than how many may start at it


def _is_number(value: Any, *, above: float) -> bool:
    return isinstance(value, int | float) and above < value < math.inf


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
    """The handler returned `value`: as `msgspec.Raw` if it comes from another process, as JSON."""

    value: object


class Raised(msgspec.Struct, frozen=True):
    """The handler raised `error`, which may be anything. What comes from another process brings its traceback as text."""

    error: BaseException
    trace: str = ""


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


class Unrecordable(msgspec.Struct, frozen=True):
    """The handler returned, and what it returned cannot be recorded."""

    why: str


class Lost(msgspec.Struct, frozen=True):
    """The worker's process died under the run. `error` says how."""

    error: BaseException


class Late(msgspec.Struct, frozen=True):
    """The job's deadline had passed, so nothing was run."""


Outcome = Returned | Raised | TimedOut | Cancelled | Interrupted | Unreadable | Unrecordable | Lost | Late

RETURNED_NONE = Returned(None)


class Decision(msgspec.Struct, frozen=True):
    """What becomes of the job: `cause` leads to its next state, `after_s` is how long it waits there, `reason` one word for people."""

    cause: Cause
    after_s: float = 0.0
    reason: str = ""


def decide(outcome: Outcome, retry: Retry, failures: int, rng: Random, *, crashes_left: int = 0) -> Decision:
    """What follows from `outcome`, for a job that had failed `failures` times before this run, and may crash so often after it."""
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
        case Unrecordable():
            return Decision(Cause.GAVE_UP, reason=UNRECORDABLE)
        case Lost():
            return Decision(Cause.CRASHED) if crashes_left > 0 else Decision(Cause.WORKER_LOST, reason="worker_lost")
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


def traced(error: BaseException) -> str:
    """The traceback of an exception as text, whatever its own `__str__` does."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception as broken:  # noqa: BLE001 -- an exception's own `__str__` may raise anything
        return f"{type(error).__name__} (its text could not be had: {type(broken).__name__})"
