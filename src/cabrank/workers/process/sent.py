"""What one process was sent: the call that it runs, and behind it, where calls are short, those that wait for it in its pipe.

A process runs one after another, and is never kept waiting for this one. What it has not begun is taken back when the run before it
turns out to be long, when somebody wants it, and when the process dies: only what it had begun has crashed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from cabrank.errors import WorkerLost
from cabrank.job import Lease
from cabrank.policy import RETURNED_NONE, Lost, Outcome, Raised
from cabrank.workers.contract import Holder, Source
from cabrank.workers.process import wire
from cabrank.workers.process.fleet import Fleet
from cabrank.workers.process.link import QUIET, Link

LOOK_S = 0.005  # a run that is longer than this gets no calls behind it, or loses them
AHEAD_BYTES = 1 << 16  # of calls that are sent at a time behind another: what fits into a pipe


class Sent:
    """From the first call until there is none left, or the process can run no more: `over` is done then."""

    def __init__(self, fleet: Fleet, link: Link, source: Source) -> None:
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self._loop.create_future()
        self.serves = True
        """Whether the process can go on when this is over."""
        self.asked: Outcome | None = None
        """What the run that is told to stop is to end with."""
        self.began_at = source.monotonic()
        """When the first of the leases began, as far as can be known here."""
        self._fleet = fleet
        self._link = link
        self._source = source
        self._leases: deque[Lease] = deque()
        self._runs = 0
        self._asking = self._last = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def lease(self) -> Lease | None:
        """What runs now. The same object as long as it does."""
        return self._leases[0] if self._leases else None

    def begin(self, lease: Lease, frame: bytes) -> None:
        """Send the first call, and what may follow it."""
        self._source.at_work += 1
        self._link.replied = self._replied
        self._leases.append(lease)
        self._fill([frame])

    def take_back(self) -> None:
        """Put back what has not begun, but for the first."""
        if len(self._leases) > 1:
            self._put_back(self._link.take_back(len(self._leases) - 1))

    def ask(self, outcome: Outcome, lease: Lease | None) -> bool:
        """Stop what runs; see `Worker.interrupt`. What the process has not begun is taken back first, so nothing else ends with it."""
        if self.over.done() or self.asked is not None or (lease is not None and lease is not self.lease):
            return False
        self._asking = True
        self.take_back()
        self._link.read()  # what has ended needs no stopping, and the next is what runs then
        self._asking = False
        if self.over.done():
            return False
        if self.lease is None or (lease is not None and lease is not self.lease):
            self._fill([])
            return False
        self.asked = outcome
        self._fleet.stop(self._link)
        return True

    def lose(self, error: WorkerLost) -> None:
        """The process has died. A process that has never replied is not tried with the same call for ever: that is a crash too."""
        self.serves = False
        if self.over.done():
            return
        keeps_first = self.asked is not None or not self._link.jobs
        self._put_back(self._link.take_back(len(self._leases) - keeps_first))
        while self._leases:
            self._count(1)
            self._source.report(self._leases.popleft(), self.asked or Lost(error))
        self._end()

    def _replied(self, frames: list[bytes]) -> None:
        source, leases, memory = self._source, self._leases, 0
        if any(map(wire.is_report, frames)) and not (frames := self._reported(frames)):
            return
        self._count(len(frames))
        for frame in frames:
            outcome, held = wire.read_reply(frame)
            memory = held or memory
            lease = leases.popleft()
            if outcome is RETURNED_NONE and lease.run == 1:
                source.returned(lease.job.id)
            else:
                source.report(lease, outcome)
        self._link.count(len(frames), memory)
        source.tell()
        if self.asked is not None:  # it returned before it was told to stop, and that is on its way still
            self.serves = False
            self._end()
        elif self._served():
            self._retire()
        elif not self._asking:
            self._fill([])

    def _reported(self, frames: list[bytes]) -> list[bytes]:
        """Pass on how far runs are; what comes back are the replies. What a run says that has ended is dropped."""
        leases = {(lease.job.id, lease.run): lease for lease in self._leases}
        for report in map(wire.read_report, filter(wire.is_report, frames)):
            lease = leases.get(report.fence)
            if lease is not None and self._fleet.report is not None:
                self._fleet.report(lease, report.fraction, report.note)
        return [frame for frame in frames if not wire.is_report(frame)]

    def _count(self, runs: int) -> None:
        now = self._source.monotonic()
        self._source.ended += runs
        self._source.running_s += now - self.began_at
        self.began_at = now
        self._runs += runs

    def _fill(self, frames: list[bytes]) -> None:
        """Send `frames`, of leases that are here already, and as many more as the process may have."""
        most, size = self._most(), 0
        while len(self._leases) < most and size < AHEAD_BYTES:
            lease = self._source.next_lease(first=not self._leases)
            if lease is None:
                break
            try:
                frame = wire.call_of(lease)
            except Exception as error:  # noqa: BLE001 -- pickling runs the user's code
                self._source.ended += 1
                self._source.report(lease, Raised(error))
                continue
            self._leases.append(lease)
            frames.append(frame)
            size += len(frame)
            if lease.crashes:
                break
        if frames:
            if len(frames) == len(self._leases):
                self._link.forget_output()
            self._link.call(frames)
        if len(self._leases) > 1 and self._timer is None:
            self._timer = self._loop.call_later(LOOK_S, self._look, self._runs)
        elif not self._leases:
            self._end()

    def _most(self) -> int:
        """How many leases may be here."""
        if self._last:
            return 0
        if self._link.quiet < QUIET or (self._leases and self._leases[0].crashes):
            return 1
        jobs, most = self._fleet.settings.recycle_jobs, self._source.most_held()
        return most if jobs is None else min(most, jobs - self._link.jobs)

    def _look(self, runs: int) -> None:
        """Leave nothing behind a run that is long."""
        self._timer = None
        if len(self._leases) > 1:
            if self._runs == runs:
                self.take_back()
            else:
                self._timer = self._loop.call_later(LOOK_S, self._look, self._runs)

    def _put_back(self, count: int) -> None:
        if count:
            back = [self._leases.pop() for _ in range(count)]
            back.reverse()
            self._source.put_back(back)

    def _served(self) -> bool:
        """Whether another process is to take over."""
        settings, link = self._fleet.settings, self._link
        jobs, age_s, memory = settings.recycle_jobs, settings.recycle_age_s, settings.recycle_memory
        return (
            (jobs is not None and link.jobs >= jobs)
            or (memory is not None and link.memory >= memory)
            or (age_s is not None and self._fleet.clock.monotonic() - link.began_at >= age_s)
        )

    def _retire(self) -> None:
        """Let the process leave, when it has ended what it has begun."""
        self._last = True
        self._put_back(self._link.take_back(len(self._leases)))
        if not self._leases:
            self.serves = False
            self._fleet.dismiss(self._link)
            self._end()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.over.done():
            self._source.at_work -= 1
            self.over.set_result(None)


class Alone:
    """The source of one lease."""

    def __init__(self, lease: Lease, *, began_at: float) -> None:
        self.outcome: Outcome | None = None
        self.at_work = self.ended = 0
        self.running_s = 0.0
        self.holders: set[Holder] = set()
        self._lease: Lease | None = lease
        self._began_at = began_at

    def monotonic(self) -> float:
        """When it began."""
        return self._began_at

    def most_held(self) -> int:
        """This one."""
        return 1

    def next_lease(self, *, first: bool) -> Lease | None:
        """It, once."""
        del first
        lease, self._lease = self._lease, None
        return lease

    def put_back(self, leases: Sequence[Lease]) -> None:
        """It was not begun."""
        [self._lease] = leases

    def returned(self, id: int) -> None:
        """What came of it."""
        del id
        self.outcome = RETURNED_NONE

    def report(self, lease: Lease, outcome: Outcome) -> None:
        """What came of it."""
        del lease
        self.outcome = outcome

    def tell(self) -> None:
        """It is told."""
