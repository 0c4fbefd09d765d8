"""What happened, told in lists: one event a turn or a slice, and nothing is built when nobody listens."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

import msgspec

from cabrank.block import Leases, granted
from cabrank.job import Job, Lease, Settlement
from cabrank.states import Cause

logger = logging.getLogger("cabrank")


class JobsAdmitted(msgspec.Struct, frozen=True):
    """New jobs are stored, as safely as the store promises. `parts` are their submissions; what several brought may be one part."""

    parts: Sequence[Sequence[Job]]

    @property
    def jobs(self) -> Sequence[Job]:
        """All of them. Cost: makes what travelled as a block."""
        return [job for part in self.parts for job in part]


class JobsClaimed(msgspec.Struct, frozen=True):
    """Leases came in, `parts` as they came."""

    parts: Sequence[Lease | Leases]

    @property
    def leases(self) -> Sequence[Lease]:
        """All of them. Cost: makes what travelled as a block."""
        return list(granted(self.parts))


class JobsSettled(msgspec.Struct, frozen=True):
    """What became of runs is recorded; lost leases are not among them.

    `returned` are the runs that returned None: by the number of the run, the ids of the jobs. `others` are all other settlements.
    """

    returned: Mapping[int, Sequence[int]]
    others: Sequence[Settlement]

    @property
    def settlements(self) -> Sequence[Settlement]:
        """All of them. Cost: makes one for each run that returned None."""
        return [*(Settlement(id, run, Cause.RETURNED) for run, ids in self.returned.items() for id in ids), *self.others]


class LeasesLost(msgspec.Struct, frozen=True):
    """Settlements that changed nothing, as (job id, run): another holder has those jobs now."""

    fences: Sequence[tuple[int, int]]


class RunsCancelling(msgspec.Struct, frozen=True):
    """Runs of this process, as (job id, run), were told to stop because their jobs were cancelled. What comes of them is settled later."""

    fences: Sequence[tuple[int, int]]


class TurnFailed(msgspec.Struct, frozen=True):
    """The store did not answer; the turn is sent again in `again_in_s`."""

    number: int
    error: Exception
    again_in_s: float


Event = JobsAdmitted | RunsCancelling | JobsClaimed | JobsSettled | LeasesLost | TurnFailed
Subscriber = Callable[[Event], None]


class Events:
    """The stream. A subscriber is called in the event loop and must be quick; one that raises is logged and kept."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def __bool__(self) -> bool:
        """Whether anybody listens: ask before building an event."""
        return bool(self._subscribers)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with each event from now on. What is returned ends that."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def publish(self, event: Event) -> None:
        """Tell all subscribers."""
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception:
                logger.exception("an event subscriber raised")


class Counters:
    """What happened since the start, in jobs; `/metrics` reads it."""

    def __init__(self) -> None:
        self.admitted = 0
        self.refused = 0
        self.done = 0
        self.retried = 0
        self.dead = 0
        self.cancelled = 0
        self.expired = 0
        self.dropped = 0
        self.held = 0
        self.released = 0
        self.lost = 0
        self.left_behind = 0
        self.loop_blocks = 0
        self.leases_let_go = 0
        self.turns = 0
        self.turns_s = 0.0
        self.turns_failed = 0

    def count(self, settlements: Sequence[Settlement]) -> None:
        """Count what became of runs."""
        for cause, number in Counter(map(_cause_of, settlements)).items():
            name = _COUNTER[cause]
            setattr(self, name, getattr(self, name) + number)


_cause_of = attrgetter("cause")
_COUNTER = {
    Cause.RETURNED: "done",
    Cause.RETRIED: "retried",
    Cause.SNOOZED: "retried",
    Cause.RELEASED: "released",
    Cause.CRASHED: "retried",
    Cause.GAVE_UP: "dead",
    Cause.WORKER_LOST: "dead",
    Cause.CANCELLED: "cancelled",
    Cause.DROPPED: "expired",
    Cause.UNREADABLE: "held",
}
