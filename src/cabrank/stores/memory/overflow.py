"""What a full queue in memory drops, as its policy says, and how many of those are still known."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import nlargest, nsmallest

import msgspec

from cabrank.block import Block, ids_of, queues_of
from cabrank.job import Job
from cabrank.settings import MEMORY_BOUND, Overflow, Settings
from cabrank.states import State
from cabrank.stores.contract import OVERFLOW, Submission
from cabrank.stores.memory.ledger import Ledger
from cabrank.stores.memory.line import Line
from cabrank.stores.memory.rows import NEW, Shelved

OLDEST = Overflow.DROP_OLDEST


class Drops:
    """Drops jobs of one ledger. Ready ones go first; those in line for a limit, or due later, when no other is left. Where the oldest
    go, what has just come does so last.

    What was dropped can be asked for as other jobs that ended: the oldest are forgotten beyond the bounds for finished ones.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: deque[Job] = deque()
        self._size = 0

    def make_room(self, new: Iterable[Submission], settings: Settings) -> list[int]:
        """Bring the queues that these jobs came to back to their bounds, where the policy is to drop: the jobs that had to go."""
        if settings.overflow is Overflow.WAIT:
            return []
        dropped: list[int] = []
        new = list(new)
        for queue in {queue: None for submission in new for queue in queues_of(submission.jobs)}:
            policy, bound = settings.overflow_of(queue), settings.bound_of(queue, MEMORY_BOUND)
            line = self._ledger.line(queue)
            came: frozenset[int] | None = None
            while policy.drops and not line.has_room(0, 0, bound):
                if came is None:
                    came = frozenset(id for submission in new for id in ids_of(submission.jobs)) if policy is OLDEST else frozenset()
                jobs = self._some(queue, line, policy, max(1, line.count - bound.jobs), came)
                if not jobs:
                    break
                self._drop(line, jobs)
                dropped += [job.id for job in jobs]
        self._forget(settings)
        return dropped

    def _some(self, queue: str, line: Line, policy: Overflow, most: int, came: frozenset[int]) -> Sequence[Job]:
        """At least one job, if any is there, and at most so many; those that `came` when no other is left."""
        oldest = policy is OLDEST
        while (one := line.pop_oldest() if oldest else line.pop_last()) is not None:
            if came and (one.first if isinstance(one, Block) else one.id) in came:
                line.untake((one,))
                others = self._not_ready(queue, line, policy, most, came)
                if others:
                    return others
                came = frozenset()
                continue
            if isinstance(one, Block):
                part, rest = (one[:most], one[most:]) if oldest else (one[-most:], one[:-most])
                if rest and oldest:
                    line.untake((rest,))
                elif rest:
                    line.untake_last(rest)
                self._ledger.created.update(dict.fromkeys(part.ids, part.created_at))
                return list(part)
            if self._ledger.still_waits(one):
                return (one,)
        return self._not_ready(queue, line, policy, most, came) or self._not_ready(queue, line, policy, most, frozenset())

    def _not_ready(self, queue: str, line: Line, policy: Overflow, most: int, came: frozenset[int]) -> Sequence[Job]:
        """Jobs that stand in line for a limit, or are due later."""
        now = self._ledger.clock.now()
        jobs = [job for job in self._ledger.waiting.values() if job.queue == queue and job.id not in came]
        in_line = [job for job in jobs if job.limit_key is not None and job.due_at <= now]
        later = [job for job in jobs if job.due_at > now]
        chosen = _chosen(in_line or later, policy, most)
        ids = {job.id for job in chosen}
        line.forget_later(ids)
        self._ledger.limited.forget(ids)
        return chosen

    def _drop(self, line: Line, jobs: Sequence[Job]) -> None:
        ledger, now = self._ledger, self._ledger.clock.now()
        line.add(-len(jobs), -sum([len(job.payload) for job in jobs]))
        for job in jobs:
            past = ledger.history.get(job.id, NEW)
            ledger.waiting.pop(job.id, None)
            ledger.shelved[job.id] = Shelved(job, State.EXPIRED, now)
            ledger.history[job.id] = msgspec.structs.replace(past, reason=OVERFLOW)
            self._size += len(job.payload)
        self._known.extend(jobs)

    def _forget(self, settings: Settings) -> None:
        while self._known and (len(self._known) > settings.keep_done_jobs or self._size > settings.keep_done_bytes):
            job = self._known.popleft()
            self._size -= len(job.payload)
            shelved = self._ledger.shelved.get(job.id)
            if shelved is not None and shelved.job is job:  # nobody has reopened it
                self._ledger.forget(job.id)


def _chosen(jobs: Sequence[Job], policy: Overflow, most: int) -> Sequence[Job]:
    if policy is OLDEST:
        return nsmallest(most, jobs, key=lambda job: (job.due_at, job.id))
    return nlargest(most, jobs, key=lambda job: (job.priority, job.due_at, job.id))
