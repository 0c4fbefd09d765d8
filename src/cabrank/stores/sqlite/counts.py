"""How many jobs wait in each queue, kept in a row for each queue so that a bound costs no counting."""

from __future__ import annotations

from typing import Any

import apsw
import msgspec

from cabrank.stores.sqlite import statements as sql
from cabrank.stores.sqlite.lines import Lines


class Waiting(msgspec.Struct):
    """One queue as this turn sees it. `ready`: a job without a limit may be ready to be claimed; `in_line`: one that has a limit.

    `paused`: none may be claimed.
    """

    jobs: int = 0
    size: int = 0
    ready: bool = False
    in_line: bool = False
    paused: bool = False
    written: tuple[int, int] = (0, 0)
    """The counts as the file has them."""

    def add(self, jobs: int, size: int) -> None:
        """Count jobs in, or out with negative numbers."""
        self.jobs += jobs
        self.size += size


class Opening(msgspec.Struct):
    """What a turn finds when it begins. `turn` is None if this process was taken for dead."""

    turn: int | None
    later_at: float | None
    cancelling: bool
    progress: bool
    """Whether a job that runs may have told how far it is."""
    lines: Lines | None
    """None where no job has a limit."""
    queues: dict[int, Waiting]
    now: float = 0.0
    """The moment of the turn."""
    aroused: bool = False
    """Set when a job became ready, or will, that others may claim."""
    suspect: bool = False
    """Set when a suspect is next and cannot be claimed now."""

    def due(self, at: float) -> None:
        """A job waits that becomes ready at that moment."""
        self.later_at = at if self.later_at is None else min(at, self.later_at)

    def queue(self, number: int) -> Waiting:
        """The counts of a queue."""
        return self.queues.setdefault(number, Waiting())


def look(connection: apsw.Connection, holder: int, lines: Lines) -> Opening:
    """What there is, in one statement."""
    row: Any = connection.execute(sql.LOOK, (holder,)).get
    turn, later_at, cancelling, limits, progress, queues = row
    counts = msgspec.json.decode(queues, type=list[tuple[int, int, int, int, int]])
    return Opening(
        turn,
        later_at,
        bool(cancelling),
        bool(progress),
        lines if limits else None,
        {
            number: Waiting(jobs, size, bool(ready), paused=bool(paused), written=(jobs, size))
            for number, jobs, size, ready, paused in counts
        },
    )


def write(connection: apsw.Connection, opening: Opening) -> None:
    """Write the counts that are others than before; a job that starts in the turn that brings it changes none."""
    for number, waiting in opening.queues.items():
        if (waiting.jobs, waiting.size) != waiting.written:
            connection.execute(sql.COUNT_QUEUE, (waiting.jobs, waiting.size, number))
