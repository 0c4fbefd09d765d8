"""What answers say, as types: so that `/openapi.json` describes what is sent."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cabrank.errors import Fault
from cabrank.job import text_id
from cabrank.server.problems import Problem
from cabrank.states import State
from cabrank.stores.contract import JobRecord
from cabrank.timeline import Happening, timeline_of


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """What a 202 says beside ids with `?position=true`; of the first job, if they are many. Null is what cannot be known.

    `position` is how many jobs start before it, `starts_in_s` in how many seconds it starts at the rate at which its queue is worked
    off.
    """

    position: int | msgspec.UnsetType | None = msgspec.UNSET
    starts_in_s: float | msgspec.UnsetType | None = msgspec.UNSET


class Accepted(Placed, frozen=True):
    """The 202 to one job."""

    id: str


class AcceptedAll(Placed, frozen=True):
    """The 202 to several jobs, in their order."""

    ids: list[str]


class Batched(Placed, frozen=True, omit_defaults=True):
    """The 202 to a batch: ids in the order of its payloads, null for those that are not stored; `errors` says what is wrong with them."""

    ids: list[str | None]
    errors: list[Fault] = []


class LineStored(msgspec.Struct, frozen=True):
    """A line of a stream's answer: the job of that line is stored."""

    line: int
    id: str


class LineFailed(msgspec.Struct, frozen=True):
    """A line of a stream's answer: that line is not stored."""

    line: int
    problem: Problem


class StreamEnd(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last line of a stream's answer. `end`: all was read. If not, `problem` says why, and `next_line` is the first to send again."""

    end: bool
    next_line: int
    lines: int
    stored: int
    problem: Problem | None = None


class Readiness(msgspec.Struct, frozen=True, omit_defaults=True):
    """`GET /readyz`. `durability` and `acknowledged` say what a 202 means, by a word and a sentence.

    `drained` are the queues that take no new work while others do.
    """

    ready: bool
    durability: str
    acknowledged: str
    drained: Sequence[str] = ()


class FailedRunView(msgspec.Struct, frozen=True):
    """A run that raised, timed out, or whose process died. `at` is a moment, `error` a traceback or a sentence."""

    run: int
    at: float
    error_type: str
    error: str


class ProgressView(msgspec.Struct, frozen=True):
    """How far a run is, as its handler said last, at a moment: `fraction` of 1."""

    fraction: float
    note: str
    at: float


class JobView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`GET /jobs/{id}`. Null is what is not known of a finished job any more; what says nothing is left out.

    `cancelling`: it runs, and was told to stop. `failed_runs` are the first and the last of those that failed, `timeline` is all that is
    recorded with its moments, in its order; they and `progress` are not in lists.
    """

    id: str
    handler: str | None
    state: State
    queue: str | None
    run: int = 0
    failures: int = 0
    crashes: int = 0
    due_at: float | msgspec.UnsetType = msgspec.UNSET
    created_at: float | msgspec.UnsetType = msgspec.UNSET
    started_at: float | msgspec.UnsetType = msgspec.UNSET
    changed_at: float | msgspec.UnsetType = msgspec.UNSET
    tags: Sequence[str] = ()
    reason: str = ""
    error: str = ""
    failed_runs: Sequence[FailedRunView] = ()
    timeline: Sequence[Happening] = ()
    progress: ProgressView | msgspec.UnsetType = msgspec.UNSET
    cancelling: bool = False
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class JobsView(msgspec.Struct, frozen=True):
    """`GET /jobs`: one page. `after` leads to the next one, null behind the last."""

    jobs: list[JobView]
    after: str | None


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /queues/{name}`. `workers`, `idle` and `drained` are of this process, the rest is of the store.

    `workers` is 0 if this process does not serve the queue. `drained`: it takes no new work for it. `paused`: nothing of it starts,
    in any process. `oldest_s` is for how long the oldest of its jobs has been ready, null if none is or the store does not keep that.
    """

    name: str
    workers: int
    idle: int
    paused: bool
    drained: bool
    oldest_s: float | None
    waiting: int
    waiting_bytes: int
    running: int
    dead: int
    held: int
    bound_jobs: int
    bound_bytes: int


class QueuesView(msgspec.Struct, frozen=True):
    """`GET /queues`."""

    queues: list[QueueView]


def whole_view(record: JobRecord, prefix: str) -> JobView:
    """What is said of a job where it is asked for by itself."""
    return msgspec.structs.replace(job_view(record, prefix), timeline=timeline_of(record))


def job_view(record: JobRecord, prefix: str) -> JobView:
    """What is said of a job in a list."""
    how_far = record.progress
    return JobView(
        id=text_id(prefix, record.id),
        handler=record.handler or None,
        state=record.state,
        queue=record.queue or None,
        run=record.run,
        failures=record.failures,
        crashes=record.crashes,
        due_at=record.due_at or msgspec.UNSET,
        created_at=record.created_at or msgspec.UNSET,
        started_at=record.started_at or msgspec.UNSET,
        changed_at=record.changed_at or msgspec.UNSET,
        tags=record.tags,
        reason=record.reason,
        error=record.error,
        failed_runs=tuple(FailedRunView(run.run, run.at, run.error_type, run.error) for run in record.failed_runs),
        progress=msgspec.UNSET if how_far is None else ProgressView(how_far.fraction, how_far.note, how_far.at),
        cancelling=record.cancelling,
        result=msgspec.Raw(record.result or b"null") if record.state is State.DONE else msgspec.UNSET,
    )
