"""What runs now, for people: which jobs, for how long, and where each of them stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from cabrank.batch import leases_of
from cabrank.job import Lease, text_id
from cabrank.policy import Cancelled, Interrupted, Outcome, TimedOut
from cabrank.pool import WorkerPool
from cabrank.settings import Kind
from cabrank.workers.contract import Place
from cabrank.workers.thread import LeftBehind


class RunningJob(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    `since_s` is for how many seconds it runs. `stopping` is why it was told to stop and has not: `cancelled`, `timed_out`,
    `interrupted` by a stop of the dispatcher; else empty. `process` is the process it is in, `thread` the number of its thread there,
    0 where that is not this process. `stack` is where it stands, the outermost call first, as `app.py:12 in upload: await …`; empty
    where that cannot be seen from here.
    """

    id: str
    handler: str
    queue: str
    kind: Kind
    run: int
    since_s: float
    stopping: str
    process: int
    thread: int
    stack: Sequence[str]
    together: int = 1
    """How many jobs its call runs: `id` is the first one's of a batch."""
    left_behind: bool = False
    """It could not be stopped: its outcome is recorded, as `stopping` says, and its worker does other work; its thread goes on."""

    def __str__(self) -> str:
        """Some lines for people."""
        told = f", told to stop ({self.stopping})" if self.stopping else ""
        told = f", left behind ({self.stopping})" if self.left_behind else told
        where = f"process {self.process}" + (f", thread {self.thread}" if self.thread else "")
        others = f" and {self.together - 1} more" if self.together > 1 else ""
        head = (
            f"{self.id}{others} {self.handler}: run {self.run} in queue {self.queue} ({self.kind}) for {self.since_s:.1f} s{told}; {where}"
        )
        return "\n".join([head, *(f"    {line}" for line in self.stack)])


def running_of(pool: WorkerPool, kind: Kind, *, prefix: str, now: float, thread: int) -> Iterable[RunningJob]:
    """What the workers of a pool run. `thread` is the event loop's."""
    for worker in tuple(pool.workers):
        lease, began_at = worker.lease, worker.began_at
        if lease is not None:
            yield _running(lease, worker.place(thread), kind, since_s=now - began_at, prefix=prefix)


def left_of(left_behind: LeftBehind, *, prefix: str, now: float) -> Iterable[RunningJob]:
    """What threads still run that were left behind."""
    for run in left_behind.runs:
        yield _running(run.lease, run.place, Kind.THREAD, since_s=now - run.began_at, prefix=prefix, left_behind=True)


def _running(lease: Lease, place: Place, kind: Kind, *, since_s: float, prefix: str, left_behind: bool = False) -> RunningJob:
    return RunningJob(
        id=text_id(prefix, lease.job.id),
        handler=name_of(lease),
        queue=lease.job.queue,
        kind=kind,
        run=lease.run,
        since_s=max(0.0, since_s),
        stopping=_why(place.asked),
        process=place.process,
        thread=place.thread,
        stack=place.stack,
        together=len(leases_of(lease)),
        left_behind=left_behind,
    )


def text_of(running: Sequence[RunningJob], process: int) -> str:
    """All of it as text."""
    left = sum(one.left_behind for one in running)
    count = len(running) - left
    jobs = ("1 job runs" if count == 1 else f"{count} jobs run") + (f", {left} left behind" if left else "")
    return "\n".join([f"process {process}: {jobs}", *map(str, running)])


def name_of(lease: Lease) -> str:
    """The handler's name; of a callable that no app registered, its own."""
    function = lease.job.function
    return lease.job.handler if function is None else str(getattr(function, "__qualname__", function))


def _why(asked: Outcome | None) -> str:
    match asked:
        case Cancelled():
            return "cancelled"
        case TimedOut():
            return "timed_out"
        case Interrupted():
            return "interrupted"
        case _:
            return ""
