"""Bugs to be planted into the real code: in what this process does with its worker processes."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager
from unittest.mock import patch

from cabrank.errors import WorkerLost
from cabrank.job import Lease
from cabrank.policy import Outcome
from cabrank.workers.process import Fleet, ProcessWorker
from cabrank.workers.process.link import Link
from cabrank.workers.process.sent import Sent
from tests.simulation.bugs import Bug


def _ignore(*_said: object) -> None:
    pass


def _all_crashed() -> AbstractContextManager[object]:
    """When a process dies, all that it was sent has crashed with it."""
    lose = Sent.lose

    def lose_all(self: Sent, error: WorkerLost) -> None:
        with patch.object(Link, "take_back", lambda *_: 0):
            lose(self, error)

    return patch.object(Sent, "lose", lose_all)


def _late_stop() -> AbstractContextManager[object]:
    """A stop does not look whether its run has ended meanwhile, and what runs behind it."""

    def ask_at_once(self: Sent, outcome: Outcome, lease: Lease | None) -> bool:
        if self.over.done() or self.asked is not None or (lease is not None and lease is not self.lease):
            return False
        self._fleet.stop(self._link)
        return True

    return patch.object(Sent, "ask", ask_at_once)


def _taken_back_and_run() -> AbstractContextManager[object]:
    """What is taken back goes to others, and stays in the pipe too."""
    take_back = Link.take_back

    def take_back_copies(self: Link, most: int) -> int:
        first = self._calls - most + 1
        count = take_back(self, most)
        self._give(b"".join((first + place).to_bytes(8, "little") for place in range(count)))
        return count

    return patch.object(Link, "take_back", take_back_copies)


def _not_taken_back() -> AbstractContextManager[object]:
    """Nobody gets back what a process was sent ahead."""
    return patch.object(Sent, "take_back", _ignore)


def _not_replaced() -> AbstractContextManager[object]:
    """A worker keeps its process when that has died while nothing ran."""
    ended = ProcessWorker._ended

    def ended_at_work(self: ProcessWorker, link: Link, error: WorkerLost) -> None:
        if self._sent is not None:
            ended(self, link, error)

    return patch.object(ProcessWorker, "_ended", ended_at_work)


def _newest_first() -> AbstractContextManager[object]:
    """A reply is taken for one of the call that was sent last."""
    replied = Sent._replied

    def replied_to_the_last(self: Sent, frames: list[bytes]) -> None:
        self._leases.rotate(1)
        replied(self, frames)

    return patch.object(Sent, "_replied", replied_to_the_last)


def _works_on() -> AbstractContextManager[object]:
    """A process that has served its time is sent calls as before."""
    most = Sent._most

    def most_of_all(self: Sent) -> int:
        jobs, self._link.jobs = self._link.jobs, 0
        try:
            return most(self)
        finally:
            self._link.jobs = jobs

    return patch.object(Sent, "_most", most_of_all)


def _behind_a_suspect() -> AbstractContextManager[object]:
    """Calls are sent behind a job that has a crash behind it."""

    def most_behind_any(self: Sent) -> int:
        if self._last:
            return 0
        jobs, most = self._fleet.settings.recycle_jobs, self._source.most_held()
        return most if jobs is None else min(most, jobs - self._link.jobs)

    return patch.object(Sent, "_most", most_behind_any)


def _left_alone() -> AbstractContextManager[object]:
    """A stop does not wait until the processes have ended."""

    async def close_and_forget(self: Fleet) -> None:
        for link in self._links.values():
            self._signal(link, signal.SIGTERM)
        if self._keeper is not None:
            self._keeper.let_go()

    return patch.object(Fleet, "close", close_and_forget)


def _deaf() -> AbstractContextManager[object]:
    """A process that ignores that it is told to stop is not killed."""
    return patch.object(Fleet, "_kill_after", _ignore)


def _keeper_not_missed() -> AbstractContextManager[object]:
    """Nobody is told that the keeper has died, and its workers with it."""
    return patch.object(Fleet, "_lose_keeper", _ignore)


BUGS = (
    Bug("a death counts against all that was sent ahead", _all_crashed),
    Bug("a late stop ends the next run", _late_stop),
    Bug("what was taken back runs in its process too", _taken_back_and_run),
    Bug("what was sent ahead is not taken back", _not_taken_back),
    Bug("a worker keeps a process that died idle", _not_replaced),
    Bug("a reply is taken for that of another call", _newest_first),
    Bug("a process that has served its time is sent calls", _works_on),
    Bug("calls are sent behind one that has crashed", _behind_a_suspect),
    Bug("a stop leaves processes behind", _left_alone),
    Bug("what ignores a stop is not killed", _deaf),
    Bug("a keeper that died is not missed", _keeper_not_missed),
)
