"""A worker as the pool drives it: one asyncio task for its whole life, which is given leases and says what came of each."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import msgspec

from cabrank.app import App
from cabrank.batch import together
from cabrank.block import Leases
from cabrank.job import Job, Lease
from cabrank.policy import Outcome, Returned
from cabrank.workers.contract import Worker
from cabrank.workers.steps import Rounds


class Gate:
    """Two named pipes in `folder`, at which `held` waits, in whichever process: it says that it is there, and is let through."""

    def __init__(self, folder: Path) -> None:
        self._pipes: list[int] = []
        self.entered, self.opened = folder / "entered", folder / "opened"

    def __enter__(self) -> Self:
        """Make the pipes, and keep both ends open so that nobody waits for the other one to open them."""
        for path in (self.entered, self.opened):
            os.mkfifo(path)
            self._pipes.append(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        return self

    def __exit__(self, *exception: object) -> None:
        """Let through whoever still waits."""
        self.open(100)
        for pipe in self._pipes:
            os.close(pipe)

    @property
    def paths(self) -> tuple[str, str]:
        """The arguments of `held`."""
        return str(self.entered), str(self.opened)

    async def reached(self) -> None:
        """Wait until a run stands at the gate."""
        loop = asyncio.get_running_loop()
        there: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._pipes[0], lambda: None if there.done() else there.set_result(None))
        try:
            await there
            os.read(self._pipes[0], 1)
        finally:
            loop.remove_reader(self._pipes[0])

    def open(self, count: int = 1) -> None:
        """Let so many runs through."""
        os.write(self._pipes[1], b"x" * count)


class Desk:
    """Where a worker that runs through many leases says what came of them."""

    def __init__(self) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self.at_work = self.ended = 0
        self.running_s = 0.0
        self.slice_s = 0.001
        self.at_once = 1
        self.monotonic: Callable[[], float] = time.monotonic
        self.first_runs: list[int] = []
        self.rank: Collection[object] = ()
        self.rounds = Rounds(self.rank)
        self.tell: Callable[[], None] = lambda: None
        self.report: Callable[[Lease, Outcome], None] = self._report

    def after(self, leases: Leases) -> Leases | None:
        """Nothing comes after these."""
        del leases
        return None

    def _report(self, lease: Lease, outcome: Outcome) -> None:
        self.outcomes[lease.job.id] = outcome


class Driven:
    """A worker that is given leases of one app's handlers, one after another."""

    def __init__(self, worker: Worker, app: App) -> None:
        self.worker = worker
        self.outcomes: list[Outcome] = []
        self.leases: asyncio.Queue[Lease | None] = asyncio.Queue()
        self._ended = asyncio.Event()
        self._app = app
        self._ids = itertools.count(1)

    def lease(self, handler: str, *args: object, run: int = 1, failures: int = 0, deadline_at: float = 0.0) -> Lease:
        """A lease as a store hands it out: the payload is what counts, as it does in another process."""
        found = self._app.handlers[handler]
        payload = found.codec.encode(args)
        job = Job(id=next(self._ids), handler=handler, queue=found.queue, payload=payload, deadline_at=deadline_at)
        return Lease(job, run, failures)

    async def outcome(self, handler: str, *args: object) -> Outcome:
        """Run one call of a handler to its end."""
        return await self.outcome_of(self.lease(handler, *args))

    async def outcome_of(self, lease: Lease) -> Outcome:
        """Run a lease to its end."""
        self.give(lease)
        return await self.next_outcome()

    async def batch(self, handler: str, *items: object) -> Sequence[Outcome]:
        """Run one call of a batch handler to its end."""
        call = together([self.lease(handler, item) for item in items], list(items))
        return call.outcomes(await self.outcome_of(call))

    def give(self, lease: Lease) -> None:
        """Let it be run, without waiting for it."""
        self.leases.put_nowait(lease)

    async def next_outcome(self) -> Outcome:
        """Wait for the next outcome and take it."""
        while not self.outcomes:
            self._ended.clear()
            await self._ended.wait()
        return self.outcomes.pop(0)

    async def live(self) -> None:
        """What the pool does with a worker."""
        worker = self.worker
        try:
            while (lease := await self.leases.get()) is not None:
                worker.lease = lease
                outcome = await worker.run(lease)
                worker.lease = None
                self.outcomes.append(self._decoded(lease, outcome))
                self._ended.set()
                if worker.suspended:
                    worker.suspended = False
                    await worker.settle_down()
        finally:
            worker.close()

    def _decoded(self, lease: Lease, outcome: Outcome) -> Outcome:
        """A result that came as JSON, as its handler's type says."""
        if isinstance(outcome, Returned) and isinstance(outcome.value, msgspec.Raw):
            return Returned(self._app.handlers[lease.job.handler].codec.decode_result(bytes(outcome.value)))
        return outcome


@asynccontextmanager
async def driven(worker: Worker, app: App) -> AsyncGenerator[Driven]:
    """Drive `worker`; at the end it is retired and closed, and a run that is still there is cancelled with it."""
    drives = Driven(worker, app)
    life = asyncio.ensure_future(drives.live())
    try:
        yield drives
    finally:
        worker.retire()
        drives.leases.put_nowait(None)
        if worker.lease is not None:
            life.cancel()
        await asyncio.wait([life])
        if not life.cancelled() and life.exception() is not None:
            raise AssertionError("the worker's life ended with an error") from life.exception()
