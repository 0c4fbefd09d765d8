"""Jobs with a unique key, in memory: which are unfinished, and what becomes of another one."""

from __future__ import annotations

from collections.abc import Callable

from cabrank.job import UNIQUE_OVER, Conflict, Job
from cabrank.states import UNFINISHED, State
from cabrank.stores.contract import STORED, Admission, Submission, Verdict


class Uniques:
    """The jobs that have each key. What is gone is forgotten when somebody looks, or with `prune`.

    `state_of` says in which state a job is, None if it is done or unknown.
    """

    def __init__(
        self, state_of: Callable[[int], State | None], *, debounce: Callable[[int, float], None], replace: Callable[[int], None]
    ) -> None:
        self._state_of = state_of
        self._debounce = debounce
        self._replace = replace
        self._ids: dict[tuple[str, str], list[int]] = {}

    def conflict(self, submission: Submission) -> Admission | None:
        """The answer, if the job is not to be stored. One that waits may be due later for that."""
        (job,) = submission.jobs
        waiting = self._waiting(job)
        if submission.on_conflict is not Conflict.SKIP and waiting is not None:
            if submission.on_conflict is Conflict.REPLACE:
                return None
            self._debounce(waiting, job.due_at)
            return Admission(Verdict.UNIQUE, waiting, 1)
        standing = [id for id in self._standing(job) if self._state_of(id) in submission.in_the_way]
        return Admission(Verdict.UNIQUE, standing[-1], 1) if standing else None

    def replaceable(self, submission: Submission) -> int | None:
        """The job whose place the new one takes."""
        return self._waiting(submission.jobs[0]) if submission.on_conflict is Conflict.REPLACE else None

    def admit(self, submission: Submission, replaced: int | None) -> Admission:
        """The job is to be stored, and the one that it replaces to go."""
        (job,) = submission.jobs
        if replaced is not None:
            self._replace(replaced)
        self._ids[job.handler, job.unique] = [*self._standing(job), job.id]
        return STORED if replaced is None else Admission(Verdict.STORED, replaced=replaced)

    def take_again(self, job: Job) -> int | None:
        """A job is to be reopened: the unfinished one that has its key, if one has; else the key is its own again."""
        if not job.unique:
            return None
        others = [id for id in self._standing(job) if id != job.id]
        unfinished = [id for id in others if self._state_of(id) in UNFINISHED]
        if unfinished:
            return unfinished[-1]
        self._ids[job.handler, job.unique] = [*others, job.id]
        return None

    def prune(self) -> None:
        """Forget the keys of jobs that are gone."""
        self._ids = {key: left for key, ids in self._ids.items() if (left := self._there(ids))}

    def _standing(self, job: Job) -> list[int]:
        return self._there(self._ids.get((job.handler, job.unique), []))

    def _there(self, ids: list[int]) -> list[int]:
        return [id for id in ids if self._state_of(id) in UNIQUE_OVER]

    def _waiting(self, job: Job) -> int | None:
        return next((id for id in self._standing(job) if self._state_of(id) is State.WAITING), None)
