"""New jobs into the file: receipts, bounds, and one insert for all jobs that are alike but for their payloads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import apsw
import msgspec

from cabrank.job import Job, Lease
from cabrank.settings import STORE_BOUND, Settings
from cabrank.stores.contract import STORED, Admission, Submission, Verdict, Want
from cabrank.stores.sqlite import statements as sql
from cabrank.stores.sqlite.counts import Opening
from cabrank.stores.sqlite.names import Names
from cabrank.stores.sqlite.schema import Phase


class _Receipt(msgspec.Struct, array_like=True, frozen=True):
    key: str
    digest: str
    first_id: int
    jobs: int


class Admitter:
    """Judges and inserts the submissions of one turn."""

    def __init__(
        self, connection: apsw.Connection, *, queues: Names, handlers: Names, settings: Settings, opening: Opening, holder: int, now: float
    ) -> None:
        self._connection = connection
        self._queues = queues
        self._handlers = handlers
        self._settings = settings
        self._opening = opening
        self._holder = holder
        self._now = now

    def admit(self, new: Sequence[Submission], want: Mapping[str, Want]) -> tuple[list[Admission], list[Lease]]:
        """The answer to each submission, and leases for those new jobs that can start before any that waits."""
        receipts = self._receipts([submission.key for submission in new if submission.key])
        fresh: list[_Receipt] = []
        answers: list[Admission] = []
        jobs: list[Job] = []
        for submission in new:
            answer = self._judge(submission, receipts)
            answers.append(answer)
            if answer is STORED:
                jobs.extend(submission.jobs)
                if submission.key:
                    fresh.append(receipts[submission.key])
        if fresh:
            self._connection.execute(
                sql.REMEMBER,
                (self._now + self._settings.receipts_s, msgspec.json.encode(fresh).decode()),
            )
        return answers, self._insert(jobs, want) if jobs else []

    def _receipts(self, keys: Sequence[str]) -> dict[str, _Receipt]:
        if not keys:
            return {}
        found = self._connection.execute(sql.RECEIPTS, (msgspec.json.encode(keys).decode(), self._now)).get
        return {receipt.key: receipt for receipt in msgspec.json.decode(str(found), type=list[_Receipt])}

    def _judge(self, submission: Submission, receipts: dict[str, _Receipt]) -> Admission:
        if submission.key:
            receipt = receipts.get(submission.key)
            if receipt is not None:
                same = receipt.digest == submission.digest.hex()
                return Admission(Verdict.REPEATED if same else Verdict.KEY_REUSED, receipt.first_id, receipt.jobs)
        needed = _needed(submission.jobs)
        for queue, (jobs, size) in needed.items():
            bound, waiting = self._settings.bound_of(queue, STORE_BOUND), self._opening.queue(self._queues.number(queue))
            if waiting.jobs + jobs > bound.jobs:
                return Admission(Verdict.FULL, queue=queue, bound=f"{waiting.jobs:,} of {bound.jobs:,} jobs wait")
            if waiting.size + size > bound.bytes:
                return Admission(Verdict.FULL, queue=queue, bound=f"{waiting.size:,} of {bound.bytes:,} bytes wait")
        for queue, (jobs, size) in needed.items():
            self._opening.queue(self._queues.number(queue)).add(jobs, size)
        if submission.key:
            receipts[submission.key] = _Receipt(submission.key, submission.digest.hex(), submission.jobs[0].id, len(submission.jobs))
        return STORED

    def _insert(self, jobs: Sequence[Job], want: Mapping[str, Want]) -> list[Lease]:
        leased = self._startable(jobs, want)
        for alike in _alike(jobs, leased):
            self._insert_alike(alike, running=alike[0].id in leased)
        for job in (job for job in jobs if job.id in leased):
            self._opening.queue(self._queues.number(job.queue)).add(-1, -len(job.payload))
        return [Lease(job, 1) for job in jobs if job.id in leased]

    def _startable(self, jobs: Sequence[Job], want: Mapping[str, Want]) -> frozenset[int]:
        """The jobs that are written as running at once: those that a claim would choose, since nothing ready waits before them."""
        startable: list[int] = []
        for queue, its in want.items():
            if self._opening.queue(self._queues.number(queue)).ready:
                continue  # something waits already: a claim after the insert will choose by priority and age
            ready = [job for job in jobs if job.queue == queue and job.due_at <= self._now]
            if len({job.priority for job in ready}) > 1:
                ready.sort(key=lambda job: job.priority)
            size = 0
            for job in ready[: its.jobs]:
                size += len(job.payload)
                if size > its.bytes:
                    break
                startable.append(job.id)
        return frozenset(startable)

    def _insert_alike(self, jobs: Sequence[Job], *, running: bool) -> None:
        first = jobs[0]
        later = first.due_at > self._now
        phase = Phase.RUNNING if running else Phase.LATER if later else Phase.READY
        queue = self._queues.number(first.queue)
        if later:
            self._opening.later_at = min(first.due_at, self._opening.later_at or first.due_at)
        elif not running:
            self._opening.queue(queue).ready = True
        self._connection.execute(
            sql.INSERT,
            (
                first.id - 1,
                int(phase),
                queue,
                self._handlers.number(first.handler),
                first.priority,
                max(first.due_at, self._now),
                first.deadline_at,
                int(running),
                self._holder if running else None,
                apsw.carray(tuple(job.payload for job in jobs)),
            ),
        )


def _needed(jobs: Sequence[Job]) -> dict[str, tuple[int, int]]:
    if len(jobs) == 1:
        return {jobs[0].queue: (1, len(jobs[0].payload))}
    needed: dict[str, tuple[int, int]] = {}
    for job in jobs:
        count, size = needed.get(job.queue, (0, 0))
        needed[job.queue] = count + 1, size + len(job.payload)
    return needed


def _alike(jobs: Sequence[Job], leased: frozenset[int]) -> Iterator[list[Job]]:
    """Runs of jobs whose ids follow each other and who differ in nothing but the payload."""

    def shape(at: tuple[int, Job]) -> tuple[object, ...]:
        position, job = at
        return job.id - position, job.queue, job.handler, job.priority, job.due_at, job.deadline_at, job.id in leased

    for _, run in groupby(enumerate(jobs), key=shape):
        yield [job for _, job in run]
