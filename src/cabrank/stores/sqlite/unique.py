"""Jobs with a unique key: which are unfinished, and what becomes of another one. The key lives in the job's row and goes with it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import apsw
import msgspec

from cabrank.job import Conflict, Job
from cabrank.states import State
from cabrank.stores.contract import REPLACED, Admission, Submission, Verdict
from cabrank.stores.sqlite import packed
from cabrank.stores.sqlite import statements as sql
from cabrank.stores.sqlite.counts import Opening
from cabrank.stores.sqlite.names import Names
from cabrank.stores.sqlite.schema import STATE_OF, Phase


class Standing(NamedTuple):
    """A job with a unique key that is unfinished or dead."""

    id: int
    phase: int
    queue: int
    size: int

    @property
    def state(self) -> State:
        """Where it stands."""
        return STATE_OF[Phase(self.phase)]


class Uniques:
    """The unique keys of one turn."""

    def __init__(self, connection: apsw.Connection, handlers: Names, opening: Opening, now: float) -> None:
        self._connection = connection
        self._handlers = handlers
        self._opening = opening
        self._now = now
        self._standing: dict[tuple[int, str], list[Standing]] = {}
        self._pending: set[tuple[int, str]] = set()

    def look(self, new: Collection[Submission]) -> None:
        """See which jobs have the keys of these submissions."""
        keys = {self._key(submission.jobs[0]) for submission in new if submission.unique}
        if keys:
            found = self._connection.execute(sql.UNFINISHED, (packed.rows(sorted(keys)),)).get
            self._standing.update({key: [] for key in keys})
            self._pending -= keys
            for handler, key, *row in msgspec.json.decode(str(found)):
                self._standing[handler, key].append(Standing(*row))

    def pending(self, submission: Submission) -> bool:
        """Whether a job with this key was admitted in this turn and is not in the file yet."""
        return submission.unique and self._key(submission.jobs[0]) in self._pending

    def conflict(self, submission: Submission) -> Admission | None:
        """The answer, if the job is not to be stored. One that waits may be due later for that."""
        waiting = self._waiting(submission)
        if submission.on_conflict is not Conflict.SKIP and waiting is not None:
            if submission.on_conflict is Conflict.REPLACE:
                return None
            self._debounce(waiting, max(submission.jobs[0].due_at, self._now))
            return Admission(Verdict.UNIQUE, waiting.id, 1)
        standing = [its for its in self._standing[self._key(submission.jobs[0])] if its.state in submission.in_the_way]
        return Admission(Verdict.UNIQUE, standing[-1].id, 1) if standing else None

    def replaceable(self, submission: Submission) -> Standing | None:
        """The job whose place the new one takes."""
        return self._waiting(submission) if submission.on_conflict is Conflict.REPLACE else None

    def admit(self, submission: Submission, replaced: Standing | None) -> Admission:
        """The job is to be stored, and the one that it replaces to go."""
        self._pending.add(self._key(submission.jobs[0]))
        if replaced is None:
            return Admission(Verdict.STORED)
        self._connection.execute(sql.CANCEL_WAITING, (replaced.id,))
        self._connection.execute(sql.NOTE_WHY, (replaced.id, self._now, REPLACED))
        self._opening.queue(replaced.queue).add(-1, -replaced.size)
        return Admission(Verdict.STORED, replaced=replaced.id)

    def mark(self, jobs: Sequence[Job]) -> None:
        """Write the keys and tags of jobs that are in the file by now."""
        if jobs:
            rows = [(job.id, job.unique or None, packed.rows(job.tags) if job.tags else None) for job in jobs]
            self._connection.execute(sql.MARK, (packed.rows(rows),))

    def _waiting(self, submission: Submission) -> Standing | None:
        return next((standing for standing in self._standing[self._key(submission.jobs[0])] if standing.state is State.WAITING), None)

    def _debounce(self, waiting: Standing, due_at: float) -> None:
        self._connection.execute(sql.DEBOUNCE, (waiting.id, due_at, self._now))
        self._opening.aroused = True
        if due_at > self._now:
            self._opening.due(due_at)
            return
        self._opening.queue(waiting.queue).ready = True
        if self._opening.lines is not None:
            self._opening.lines.come_back([waiting.id])

    def _key(self, job: Job) -> tuple[int, str]:
        return self._handlers.number(job.handler), job.unique
