"""When a handler is to run by itself: a cron expression or an interval, and which of its moments are due. Pure: no clock, no I/O.

Every program computes the same moments from the same schedule, so that processes need not agree on anything but which was the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import Any, TypedDict
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from cabrank.errors import RegistrationError
from cabrank.job import NAME

SHORTEST_S = 1.0  # between two ticks: what is to happen more often is a loop in a handler
ON_TIME_S = 60.0  # a tick that is at most so late was not missed: a restart takes seconds
MISSED_LIMIT = 100  # missed ticks that are made up for with `all`: a machine that was off for a month is not to drown in them
FIRST_WINDOW_S = 60.0  # how far back is looked first for the last ticks; then four times as far, and so on
EXAMPLE = '"*/5 * * * *" for every five minutes, "30 7 * * mon-fri" for half past seven on working days'

Arguments = Sequence[Any] | Callable[[datetime], Sequence[Any]]


class Missed(StrEnum):
    """What becomes of ticks that came while no process was there to see them."""

    SKIP = "skip"
    """Nothing, unless the last of them is at most a minute ago."""
    ONCE = "once"
    """One job for all of them."""
    ALL = "all"
    """A job for each of the last hundred, the oldest first."""


class TickOptions(TypedDict, total=False):
    """The options of submit that a schedule may set for its jobs."""

    priority: int | None
    deadline_s: float | None
    tags: Sequence[str]
    unique: str | None


class Due(msgspec.Struct, frozen=True):
    """The ticks to submit now, the oldest first; `until` is the last that has passed; `left_out`: for others nothing is submitted."""

    ticks: Sequence[float]
    until: float
    left_out: bool


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """When jobs of a handler are submitted, and with what. Made by `@app.schedule`. Moments are seconds since the epoch."""

    name: str
    handler: str
    cron: str = ""
    every_s: float = 0.0
    timezone: str = "UTC"
    missed: Missed = Missed.ONCE
    args: Arguments = ()
    options: TickOptions = msgspec.field(default_factory=TickOptions)

    def __post_init__(self) -> None:
        """Refuse what would never run, or not as it was meant.

        Raises:
            RegistrationError: the name, the expression, the interval or the time zone cannot be used; or the package is missing.
        """
        if not NAME.fullmatch(self.name):
            raise RegistrationError(f"{self.name!r} cannot name a schedule: give `name=` of letters, digits, `.`, `_` and `-`")
        if bool(self.cron) is bool(self.every_s):
            raise self._wrong(f"give a cron expression or every_s, one of them: {EXAMPLE}")
        if self.every_s and not SHORTEST_S <= self.every_s < math.inf:
            raise self._wrong(f"every_s is a number of seconds from {SHORTEST_S:g}, not {self.every_s!r}")
        self._check_expression()

    @property
    def spec(self) -> str:
        """What the moments depend on, as text."""
        return f"{self.cron} {self.timezone}" if self.cron else f"every {self.every_s!r} s"

    @property
    def zone(self) -> tzinfo:
        """The time zone.

        Raises:
            RegistrationError: it is unknown here.
        """
        if self.timezone == "UTC":
            return UTC
        try:
            return ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise self._wrong(
                f"time zone {self.timezone!r} is unknown: write one like Europe/Berlin; "
                "a system without time zones gets them with pip install 'cabrank[schedule]'"
            ) from None

    def next_after(self, moment: float) -> float:
        """The first tick after a moment; infinity if there is none."""
        return next(self.ticks(moment), math.inf)

    def ticks(self, after: float) -> Iterator[float]:
        """The ticks after a moment, without end.

        Where clocks are set forward, what falls into the hour that is left out comes at its end; where they are set back, what has
        a fixed time comes once, in the first of the two hours, and what has a `*` for its minute or hour goes on as time does.
        """
        if self.every_s:
            number = math.floor(after / self.every_s)
            while True:
                number += 1
                if number * self.every_s > after:  # it may be rounded
                    yield number * self.every_s
        for moment in _cron(self.cron, datetime.fromtimestamp(after, self.zone)):
            tick = moment.timestamp()
            if tick > after:  # an hour that comes twice is searched from its beginning
                after = tick
                yield tick

    def due(self, last_at: float, now: float) -> Due:
        """What is to be submitted at `now`, if `last_at` was the last tick that was.

        Cost: 10 µs for each tick of a stretch that holds those that come back.
        """
        most = MISSED_LIMIT if self.missed is Missed.ALL else 1
        window_s = FIRST_WINDOW_S
        while True:
            begins_at = max(last_at, now - window_s)
            found = list(self._until(begins_at, now))
            if len(found) > most or begins_at == last_at:
                break
            window_s *= 4
        ticks = found[-most:]
        if self.missed is Missed.SKIP and ticks and ticks[-1] < now - ON_TIME_S:
            ticks = []
        return Due(ticks, found[-1] if found else last_at, len(found) > len(ticks))

    def arguments(self, tick: float) -> tuple[object, ...]:
        """What the handler is called with at a tick. What the user's function raises passes."""
        if callable(self.args):
            return tuple(self.args(datetime.fromtimestamp(tick, self.zone)))
        return tuple(self.args)

    def _until(self, after: float, until: float) -> Iterator[float]:
        for tick in self.ticks(after):
            if tick > until:
                return
            yield tick

    def _check_expression(self) -> None:
        zone = self.zone
        if not self.cron:
            return
        if len(self.cron.split()) not in {5, 6}:
            raise self._wrong(f"{self.cron!r} has not five fields (minute, hour, day, month, weekday; seconds first, if six): {EXAMPLE}")
        try:
            if next(_cron(self.cron, datetime(2000, 1, 1, tzinfo=zone)), None) is None:
                raise self._wrong(f"{self.cron!r} never comes")
        except ModuleNotFoundError:
            raise self._wrong("cron expressions need a package: pip install 'cabrank[schedule]'") from None
        except ValueError as error:
            raise self._wrong(f"{self.cron!r} is no cron expression ({str(error).lower()}): {EXAMPLE}") from None

    def _wrong(self, what: str) -> RegistrationError:
        return RegistrationError(f"schedule {self.name!r}: {what}")


def _cron(expression: str, after: datetime) -> Iterator[datetime]:
    """The moments of an expression after one.

    Raises:
        ValueError: it is none.
    """
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 -- a program without schedules need not have it

    try:
        return iter(CronSim(expression, after))
    except CronSimError as error:
        raise ValueError(str(error)) from error
