"""Jobs with a unique key, in memory: which are unfinished, and what becomes of another one."""

from __future__ import annotations

from collections.abc import Callable

from cabrank.job import Conflict, Job
from cabrank.stores.contract import STORED, Admission, Submission, Verdict


class Uniques:
    """The jobs that have each key. What is finished is forgotten when somebody looks, or with `prune`.

    `waits` says whether a job is unfinished: True, it waits; False, it runs or is held; None, it is finished or unknown.
    """

    def __init__(
        self, waits: Callable[[int], bool | None], *, debounce: Callable[[int, float], None], replace: Callable[[int], None]
    ) -> None:
        self._waits = waits
        self._debounce = debounce
        self._replace = replace
        self._ids: dict[tuple[str, str], list[int]] = {}

    def conflict(self, submission: Submission) -> Admission | None:
        """The answer, if the job is not to be stored. One that waits may be due later for that."""
        (job,) = submission.jobs
        standing, waiting = self._standing(job), self._waiting(job)
        if submission.on_conflict is Conflict.SKIP and standing:
            return Admission(Verdict.UNIQUE, standing[-1], 1)
        if submission.on_conflict is Conflict.DEBOUNCE and waiting is not None:
            self._debounce(waiting, job.due_at)
            return Admission(Verdict.UNIQUE, waiting, 1)
        return None

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

    def prune(self) -> None:
        """Forget the keys of finished jobs."""
        self._ids = {key: left for key, ids in self._ids.items() if (left := self._unfinished(ids))}

    def _standing(self, job: Job) -> list[int]:
        return self._unfinished(self._ids.get((job.handler, job.unique), []))

    def _unfinished(self, ids: list[int]) -> list[int]:
        return [id for id in ids if self._waits(id) is not None]

    def _waiting(self, job: Job) -> int | None:
        return next((id for id in self._standing(job) if self._waits(id)), None)
