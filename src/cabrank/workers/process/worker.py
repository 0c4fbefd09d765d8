"""What the pool sees of a process worker: one job at a time, each in the process that this worker has then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from cabrank.block import Leases
from cabrank.errors import WorkerLost
from cabrank.job import Lease
from cabrank.policy import Lost, Outcome, Raised
from cabrank.workers.contract import Desk, Place, nobody_minds
from cabrank.workers.process import wire
from cabrank.workers.process.fleet import Fleet
from cabrank.workers.process.link import Link


class ProcessWorker:
    """Starts a process with its first job, and another whenever the one before it has died or served its time.

    A run that is asked to stop ends with its process: what was asked for is the outcome once that is dead, so nothing of it goes on.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.lease: Lease | None = None
        self.began_at = 0.0
        self.suspended = False
        self.on_suspend: Callable[[], None] = nobody_minds
        self._fleet = fleet
        self._link: Link | None = None
        self._run: asyncio.Future[Outcome] | None = None
        self._asked: Outcome | None = None

    async def run(self, lease: Lease) -> Outcome:
        """Run the job, as `Worker.run` promises."""
        try:
            frame = wire.call_of(lease)
        except Exception as error:  # noqa: BLE001 -- pickling runs the user's code
            return Raised(error)
        self.suspended = True
        self.on_suspend()
        self._asked = None
        try:
            link = self._link or self._start()
        except OSError as error:  # no more processes or descriptors
            return Raised(error)
        self._run = run = asyncio.get_running_loop().create_future()
        link.call(frame)
        try:
            outcome: Outcome = await run
        except asyncio.CancelledError:  # the worker is closed while it runs
            self._fleet.kill(link)
            self._link = None
            raise
        finally:
            self._run = None
        return outcome

    def run_through(self, leases: Leases, desk: Desk) -> None:
        """One at a time."""
        del leases, desk

    def interrupt(self, outcome: Outcome, lease: Lease | None = None) -> bool:
        """End the process."""
        if lease is not None and lease is not self.lease:
            return False
        if self._run is None or self._run.done() or self._link is None or self._asked is not None:
            return False
        self._asked = outcome
        self._fleet.stop(self._link)
        return True

    def place(self, thread: int) -> Place:
        """In its process: where in there is not seen from here."""
        del thread
        return Place(0 if self._link is None else self._link.pid, asked=self._asked)

    async def settle_down(self) -> bool:
        """Nothing to wait for: what was meant for a run ended with its process."""
        return False

    def retire(self) -> None:
        """Nothing to do: it waits for nothing but its run."""

    def close(self) -> None:
        """Let the process leave."""
        if self._link is not None:
            self._fleet.dismiss(self._link)
            self._link = None

    def _start(self) -> Link:
        self._link = link = self._fleet.start()
        link.replied = lambda frame: self._replied(link, frame)
        link.ended = lambda error: self._ended(link, error)
        return link

    def _replied(self, link: Link, frame: bytes) -> None:
        outcome, memory = wire.read_reply(frame)
        link.jobs += 1
        link.memory = memory or link.memory
        if link is not self._link:
            return  # nobody waits for it any more
        if self._asked is not None:
            self._link = None  # it returned before it was told to stop, and that is on its way still
        elif self._served(link):
            self._fleet.dismiss(link)
            self._link = None
        self._settle(outcome)

    def _ended(self, link: Link, error: WorkerLost) -> None:
        if link is self._link:
            self._link = None
            self._settle(self._asked or Lost(error))

    def _settle(self, outcome: Outcome) -> None:
        if self._run is not None and not self._run.done():
            self._run.set_result(outcome)

    def _served(self, link: Link) -> bool:
        """Whether another process is to take over."""
        settings = self._fleet.settings
        jobs, age_s, memory = settings.recycle_jobs, settings.recycle_age_s, settings.recycle_memory
        return (
            (jobs is not None and link.jobs >= jobs)
            or (memory is not None and link.memory >= memory)
            or (age_s is not None and time.monotonic() - link.began_at >= age_s)
        )
