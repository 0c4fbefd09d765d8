"""What the pool sees of a process worker: one job at a time, each in the process that this worker has then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cabrank.block import Leases
from cabrank.errors import WorkerLost
from cabrank.job import Lease
from cabrank.policy import Outcome, Raised
from cabrank.workers.contract import Desk, Place, Source, nobody_minds
from cabrank.workers.process import wire
from cabrank.workers.process.fleet import Fleet
from cabrank.workers.process.link import Link
from cabrank.workers.process.sent import Alone, Sent


class ProcessWorker:
    """Starts a process with its first job, and another whenever the one before it has died or served its time.

    A run that is asked to stop ends with its process: what was asked for is the outcome once that is dead, so nothing of it goes on.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.suspended = False
        self.on_suspend: Callable[[], None] = nobody_minds
        self._fleet = fleet
        self._link: Link | None = None
        self._lease: Lease | None = None
        self._began_at = 0.0
        self._sent: Sent | None = None

    @property
    def lease(self) -> Lease | None:
        """What it runs now; the same object as long as it does."""
        return self._lease if self._sent is None else self._sent.lease

    @lease.setter
    def lease(self, lease: Lease | None) -> None:
        self._lease = lease

    @property
    def began_at(self) -> float:
        """When that began, on the monotonic clock."""
        return self._began_at if self._sent is None else self._sent.began_at

    @began_at.setter
    def began_at(self, moment: float) -> None:
        self._began_at = moment

    async def run(self, lease: Lease) -> Outcome:
        """Run the job, as `Worker.run` promises."""
        alone = Alone(lease, began_at=self._began_at)
        while alone.outcome is None:
            await self._serve(alone)
        return alone.outcome

    def run_through(self, leases: Leases, desk: Desk) -> None:
        """It travels."""
        del leases, desk

    async def travel(self, source: Source) -> bool:
        """See `Holder`."""
        source.holders.add(self)
        try:
            await self._serve(source)
        finally:
            source.holders.discard(self)
        return self.suspended

    def take_back(self) -> None:
        """See `Holder`."""
        if self._sent is not None:
            self._sent.take_back()

    def interrupt(self, outcome: Outcome, lease: Lease | None = None) -> bool:
        """End the process."""
        return self._sent is not None and self._sent.ask(outcome, lease)

    def place(self, thread: int) -> Place:
        """In its process: where in there is not seen from here."""
        del thread
        asked = None if self._sent is None else self._sent.asked
        return Place(0 if self._link is None else self._link.pid, asked=asked)

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

    async def _serve(self, source: Source) -> None:
        """Run what is there until there is no more, or the process has ended."""
        lease = source.next_lease(first=True)
        if lease is None:
            return
        try:
            frame = wire.call_of(lease)
            self.suspended = True
            self.on_suspend()
            link = self._link or self._start()
        except Exception as error:  # noqa: BLE001 -- pickling runs the user's code; OSError: no more processes or descriptors
            source.ended += 1
            source.report(lease, Raised(error))
            return
        sent = self._sent = Sent(self._fleet, link, source)
        sent.begin(lease, frame)
        try:
            await sent.over
        except asyncio.CancelledError:  # the worker is closed while it runs
            self._fleet.kill(link)
            self._link = None
            raise
        self._sent = None
        if link is self._link and not sent.serves:
            self._link = None

    def _start(self) -> Link:
        self._link = link = self._fleet.start()
        link.ended = lambda error: self._ended(link, error)
        return link

    def _ended(self, link: Link, error: WorkerLost) -> None:
        if link is self._link:
            self._link = None
            if self._sent is not None:
                self._sent.lose(error)
