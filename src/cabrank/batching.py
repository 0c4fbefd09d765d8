"""How a worker runs batches: it waits for a full one as long as it may, runs it as one call, and tells what came of each job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from cabrank.batch import Together, together
from cabrank.clock import Clock
from cabrank.errors import PayloadInvalid
from cabrank.handler import AnyHandler
from cabrank.job import Lease
from cabrank.policy import Late, Unreadable
from cabrank.queue import JobQueue, Line
from cabrank.settings import Settings
from cabrank.workers.contract import Desk, Worker


class Batching:
    """For the lines of one queue.

    At most one worker looks after a line at a time. Its jobs stay there meanwhile, so that they can be cancelled or handed back like
    any that wait; the worker counts as idle.
    """

    def __init__(self, queue: JobQueue, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock

    async def run(self, worker: Worker, line: Line, desk: Desk) -> bool:
        """Run a batch of the line that is next, or wait until there is one. True: the event loop has had a turn."""
        if (missing_s := line.missing_s()) > 0:
            await self._look_after(self._queue.take_line(), missing_s, worker)
            worker.began_at = desk.monotonic()
            return True
        call = self._call_of(line.handler, self._queue.take_batch(), desk)
        return call is not None and await _run(worker, call, desk)

    async def _look_after(self, line: Line, missing_s: float, worker: Worker) -> None:
        """Wait until a batch is full or its time is up. Others go on with what stands behind it."""
        line.full = asyncio.get_running_loop().create_future()
        worker.on_suspend()
        try:
            await asyncio.wait([line.full], timeout=missing_s)
        finally:
            line.full = None
            self._queue.put_back(line)

    def _call_of(self, handler: AnyHandler, leases: Sequence[Lease], desk: Desk) -> Together | None:
        """The call for those that can be run; the others have their outcome at once. None: there is none that can."""
        now = self._clock.now()
        taken: list[Lease] = []
        items: list[object] = []
        for lease in leases:
            job = lease.job
            if job.deadline_at and job.deadline_at < now:
                desk.report(lease, Late())
                continue
            try:
                [item] = handler.codec.decode(job.payload) if job.args is None else job.args
            except PayloadInvalid as error:
                desk.report(lease, Unreadable(str(error)))
                continue
            taken.append(lease)
            items.append(item)
        return together(taken, items) if taken else None


def queue_for(name: str, handlers: Iterable[AnyHandler], settings: Settings, clock: Clock) -> JobQueue:
    """The queue of that name, with a line for each of its batch handlers."""
    its = [handler for handler in handlers if handler.queue == name]
    lines = [
        Line(handler, handler.batch, max_crashes=settings.max_crashes, monotonic=clock.monotonic)
        for handler in its
        if handler.batch is not None
    ]
    return JobQueue(name, reserve_s=settings.reserve_s, lines=lines, mixed=len(lines) < len(its))


async def _run(worker: Worker, call: Together, desk: Desk) -> bool:
    worker.lease = call
    worker.began_at = began_at = desk.monotonic()
    desk.at_work += 1
    outcome = await worker.run(call)
    worker.lease = None
    desk.at_work -= 1
    desk.ended += len(call.leases)
    desk.running_s += desk.monotonic() - began_at
    for lease, its in zip(call.leases, call.outcomes(outcome), strict=True):
        desk.report(lease, its)
    return worker.suspended
