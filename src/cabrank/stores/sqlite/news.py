"""What a turn leaves behind for others: jobs that it did not take, room that it made, and when something becomes ready."""

from __future__ import annotations

from collections.abc import Mapping

from cabrank.settings import STORE_BOUND, Settings
from cabrank.stores.contract import Arrival, Want
from cabrank.stores.sqlite.counts import Opening
from cabrank.stores.sqlite.names import Names


def what_is_new(opening: Opening, queues: Names, settings: Settings, *, spare: bool) -> Arrival:
    """What other holders may want to know of a turn. `spare`: this one could have taken more jobs."""
    left = opening.aroused and any((waiting.ready or waiting.in_line) and waiting.jobs > 0 for waiting in opening.queues.values())
    left = left or (opening.lines is not None and opening.lines.left_for_others(spare=spare))
    return Arrival(work=left or _made_room(opening, queues, settings), cancelled=False, ended=())


def _made_room(opening: Opening, queues: Names, settings: Settings) -> bool:
    """Whether a queue that was more than half full is less full now: somebody may wait for that."""
    return any(
        waiting.jobs < waiting.written[0] and waiting.written[0] * 2 > settings.bound_of(queues.name(number), STORE_BOUND).jobs
        for number, waiting in opening.queues.items()
    )


def next_due_s(opening: Opening, now: float, want: Mapping[str, Want]) -> float | None:
    """How long until a job becomes ready, or may start because its limit lets it."""
    due_s = None if opening.later_at is None else max(0.0, opening.later_at - now)
    open_s = opening.lines.next_open_s() if opening.lines is not None and want else None
    return due_s if open_s is None else open_s if due_s is None else min(due_s, open_s)
