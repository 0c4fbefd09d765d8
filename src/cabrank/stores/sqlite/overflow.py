"""What a full queue in the file drops, as its policy says. Cost: three statements a turn that drops, however long the queue is.

Ready jobs go first; those in line for a limit, or due later, when no other is left. Where the oldest go, what has just come does so last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import apsw
import msgspec

from cabrank.block import ids_of, queues_of
from cabrank.job import PRIORITIES
from cabrank.settings import STORE_BOUND, Bound, Overflow, Settings
from cabrank.stores.contract import OVERFLOW, Submission
from cabrank.stores.sqlite import packed
from cabrank.stores.sqlite.counts import Opening, Waiting
from cabrank.stores.sqlite.names import Names
from cabrank.stores.sqlite.schema import Phase

READY, LATER, IN_LINE = int(Phase.READY), int(Phase.LATER), int(Phase.IN_LINE)
OLDEST = Overflow.DROP_OLDEST
MOST = 10_000  # jobs that are looked at together

_JOB = "select id, length(payload) as size from job"
_LAST = "order by priority desc, due_at desc, id desc limit ?2"
_OF_EACH_PRIORITY = " union all ".join(
    f"select * from ({_JOB} where phase = {READY} and queue = ?1 and priority = {priority} order by due_at, id limit ?2)"
    for priority in PRIORITIES
)
_IN_LINE = (
    "select job.id as id, length(payload) as size from allowance join job indexed by job_limited on job.allowance = allowance.id "
    f"where job.allowance is not null and phase = {IN_LINE} and allowance.queue = ?1"
)
_LATER = f"{_JOB} indexed by job_later where phase = {LATER} and queue = ?1"
# (queue, how many) → (id, bytes): ready ones first; those in line for a limit, or due later, when no other is left
WHICH: Mapping[Overflow, Sequence[str]] = {
    Overflow.DROP_OLDEST: (
        f"{_OF_EACH_PRIORITY} order by id limit ?2",
        f"{_IN_LINE} order by due_at, job.id limit ?2",
        f"{_LATER} order by due_at, id limit ?2",
    ),
    Overflow.DROP_LOWEST: (f"{_JOB} where phase = {READY} and queue = ?1 {_LAST}", f"{_IN_LINE} {_LAST}", f"{_LATER} {_LAST}"),
}
DROP = f"update job set phase = {int(Phase.EXPIRED)}, changed_at = ?1 where id in carray(?2)"
NOTE_WHY = f"insert or replace into note (id, at, reason, error) select value, ?1, '{OVERFLOW}', '' from carray(?2)"
EXPIRED = f"from job where phase >= {int(Phase.DEAD)} and phase = {int(Phase.EXPIRED)}"
EXCESS = f"""
delete {EXPIRED} and id <= (
    select id from (
        select id, count(*) over newest as jobs, sum(length(payload)) over newest as size {EXPIRED} window newest as (order by id desc)
    ) where jobs > ? or size > ? order by id desc limit 1
)
"""


def make_room(connection: apsw.Connection, queues: Names, new: Sequence[Submission], opening: Opening, settings: Settings) -> list[int]:
    """Bring the queues that these jobs came to back to their bounds, where the policy is to drop: the jobs that had to go."""
    dropped: list[int] = []
    for queue in {queue: None for submission in new for queue in queues_of(submission.jobs)}:
        policy, number, bound = settings.overflow_of(queue), queues.number(queue), settings.bound_of(queue, STORE_BOUND)
        if policy.drops and _is_over(opening.queue(number), bound):
            came = frozenset(id for submission in new for id in ids_of(submission.jobs)) if policy is OLDEST else frozenset[int]()
            dropped += _drop(connection, number, opening, policy, bound, came)
            dropped += _drop(connection, number, opening, policy, bound, frozenset())
    return dropped


def _drop(connection: apsw.Connection, number: int, opening: Opening, policy: Overflow, bound: Bound, spared: frozenset[int]) -> list[int]:
    waiting = opening.queue(number)
    dropped: list[int] = []
    statements = list(WHICH[policy])
    while statements and _is_over(waiting, bound):
        most = min(MOST, max(1, waiting.jobs - bound.jobs)) + len(spared)
        found = connection.execute(f"select json_group_array(json_array(id, size)) from ({statements[0]})", (number, most)).get
        rows = msgspec.json.decode(str(found), type=list[tuple[int, int]])
        ids: list[int] = []
        for id, size in rows:
            if id not in spared and _is_over(waiting, bound):
                ids.append(id)
                waiting.add(-1, -size)
        if ids:
            connection.execute(DROP, (opening.now, packed.ids(ids)))
            connection.execute(NOTE_WHY, (opening.now, packed.ids(ids)))
        dropped += ids
        if len(rows) < most or not ids:
            del statements[0]
    return dropped


def prune(connection: apsw.Connection, settings: Settings) -> None:
    """Forget the oldest of the expired beyond the bounds for what has ended: a burst must not fill the disk."""
    connection.execute(EXCESS, (settings.keep_done_jobs, settings.keep_done_bytes))


def _is_over(waiting: Waiting, bound: Bound) -> bool:
    return waiting.jobs > bound.jobs or waiting.size > bound.bytes
