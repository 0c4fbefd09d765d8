"""How many jobs wait in each queue, kept in a row for each queue so that a bound costs no counting."""

from __future__ import annotations

from typing import Any

import apsw
import msgspec

from cabrank.stores.sqlite.schema import Phase


class Waiting(msgspec.Struct):
    """One queue as this turn sees it. `ready`: a job may be ready to be claimed."""

    jobs: int = 0
    size: int = 0
    ready: bool = False
    changed: bool = False

    def add(self, jobs: int, size: int) -> None:
        """Count jobs in, or out with negative numbers."""
        self.jobs += jobs
        self.size += size
        self.changed = True


class Opening(msgspec.Struct):
    """What a turn finds when it begins. `turn` is None if this process was taken for dead."""

    turn: int | None
    later_at: float | None
    cancelling: bool
    queues: dict[int, Waiting]

    def queue(self, number: int) -> Waiting:
        """The counts of a queue."""
        return self.queues.setdefault(number, Waiting())


_OPENING = f"""
select (select turn from holder where id = ?1),
       (select min(due_at) from job where phase = {Phase.LATER:d}),
       exists(select 1 from cancelling),
       (select json_group_array(json_array(id, waiting, waiting_bytes,
           waiting > 0 and exists(select 1 from job where phase = {Phase.READY:d} and queue = queue.id))) from queue)
"""  # one row: each row and each statement is one more hand-over of the interpreter's lock


def look(connection: apsw.Connection, holder: int) -> Opening:
    """What there is, in one statement."""
    row: Any = connection.execute(_OPENING, (holder,)).get
    turn, later_at, cancelling, queues = row
    counts = msgspec.json.decode(queues, type=list[tuple[int, int, int, bool | int]])
    return Opening(turn, later_at, bool(cancelling), {number: Waiting(jobs, size, bool(ready)) for number, jobs, size, ready in counts})


def write(connection: apsw.Connection, opening: Opening) -> None:
    """Write the counts that changed."""
    for number, waiting in opening.queues.items():
        if waiting.changed:
            connection.execute("update queue set waiting = ?, waiting_bytes = ? where id = ?", (waiting.jobs, waiting.size, number))
