"""Queues that were found full a moment ago: what surely finds no room is refused at once, without a turn and before it is read."""

from __future__ import annotations

import msgspec

from cabrank.clock import Clock
from cabrank.errors import QueueFull
from cabrank.server.forecast import Forecast

LONGEST_S = 0.05  # for which a refusal holds good for others
SHARE = 0.1  # … and never longer than so much of it takes to be worked off, so that no worker has to wait because of this
ADVICE = "nothing was stored, send it again later"


class Mark(msgspec.Struct, frozen=True, gc=False):
    until: float
    size: int
    bound: str


class Fullness:
    """What is known of full queues. Only what was refused for one job is noted: where one finds no room, a larger one finds none."""

    def __init__(self, forecast: Forecast, clock: Clock) -> None:
        self._forecast = forecast
        self._monotonic = clock.monotonic
        self.marks: dict[str, Mark] = {}
        """What is known, by queue. Always the same object."""

    def __bool__(self) -> bool:
        return bool(self.marks)

    def note(self, queue: str, *, size: int, bound: str) -> None:
        """One job of `size` bytes was refused."""
        self._forecast.full.add(queue)
        rate = self._forecast.rate(queue)
        if rate is not None:  # else it may be worked off faster than anybody knows
            holds_s = min(LONGEST_S, SHARE * self._forecast.waiting(queue) / rate) if rate else LONGEST_S
            self.marks[queue] = Mark(self._monotonic() + holds_s, size, bound)

    def refusal(self, queue: str, size: int) -> QueueFull | None:
        """Why `size` bytes for a queue find no room, if that is known."""
        mark = self.marks.get(queue)
        if mark is None:
            return None
        if self._monotonic() >= mark.until:
            del self.marks[queue]
            return None
        return QueueFull(queue, mark.bound, ADVICE) if size >= mark.size else None
