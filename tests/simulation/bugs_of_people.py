"""Bugs to be planted into the real code: in what people ask for, in cancels and timeouts, and in what the clocks have to do with it."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from cabrank import Dispatcher
from cabrank.engine import Engine
from cabrank.job import Lease, Settlement
from cabrank.policy import Cancelled
from cabrank.pool import WorkerPool
from cabrank.stores.contract import Terms, Turn
from cabrank.stores.memory import Ledger, MemoryStore
from cabrank.stores.memory.rows import Run
from tests.simulation.bugs import Bug
from tests.simulation.clock import EPOCH


def _ignore(*_said: object) -> None:
    pass


def _not_handed_back() -> AbstractContextManager[object]:
    """What was claimed before its queue was paused is started all the same."""
    return patch.object(Dispatcher, "_hand_back", _ignore)


def _claimed_though_paused() -> AbstractContextManager[object]:
    """A claim does not look whether its queue is paused."""
    take_turn = MemoryStore._take_turn

    def take_turn_as_if_open(self: MemoryStore, *load: Any) -> Turn:
        with patch.object(self.ledger, "paused", set[str]()):
            return take_turn(self, *load)

    return patch.object(MemoryStore, "_take_turn", take_turn_as_if_open)


def _stays() -> AbstractContextManager[object]:
    """A worker that is told to leave is not counted any more, and works on."""

    def dismiss_from_the_list(self: WorkerPool, workers: int) -> None:
        del self._workers[-workers:]

    return patch.object(WorkerPool, "dismiss", dismiss_from_the_list)


def _open_door() -> AbstractContextManager[object]:
    """A queue that is drained takes jobs on."""
    return patch.object(Engine, "check_queue", _ignore)


def _overlooked() -> AbstractContextManager[object]:
    """A drain waits for what runs, and not for what waits in the store."""

    async def is_left(self: Dispatcher, queues: Collection[str], *, paused: str = "") -> bool:
        del paused
        return any(self.pools[queue].busy for queue in queues)

    return patch.object(Dispatcher, "_is_left", is_left)


def _cancelled_and_retried() -> AbstractContextManager[object]:
    """A run that fails after its job was cancelled is tried again."""

    def put_back_anyhow(self: Ledger, run: Run, settlement: Settlement, now: float) -> None:
        self.cancelling.pop(run.lease.job.id, None)
        self._put_back(run, settlement, now)

    return patch.object(Ledger, "_return", put_back_anyhow)


def _any_run_will_do() -> AbstractContextManager[object]:
    """A cancel stops whatever the first busy worker runs."""
    cancel = WorkerPool.cancel

    def cancel_the_first(self: WorkerPool, fence: tuple[int, int]) -> bool:
        busy = next((worker for worker in self.workers if worker.lease is not None), None)
        return cancel(self, fence) if busy is None else busy.interrupt(Cancelled())

    return patch.object(WorkerPool, "cancel", cancel_the_first)


def _no_timeout() -> AbstractContextManager[object]:
    """Nobody looks how long a run takes."""
    return patch.object(WorkerPool, "sweep", _ignore)


def _not_taken_back() -> AbstractContextManager[object]:
    """What a dead or silent holder had stays with it."""

    def take_nothing_back(self: Ledger, terms: Terms) -> list[Lease]:
        del self, terms
        return []

    return patch.object(Ledger, "take_back_expired", take_nothing_back)


def _wall_clock() -> AbstractContextManager[object]:
    """Leases run out by the wall clock, so that setting it ends them."""
    take_back = Ledger.take_back_expired

    def take_back_by_wall_clock(self: Ledger, terms: Terms) -> list[Lease]:
        ahead_s = self.clock.now() - EPOCH - self.clock.monotonic()
        for holder in self.holders.values():
            if ahead_s > terms.settings.lease_s:
                holder.expires_at = 0.0
        return take_back(self, terms)

    return patch.object(Ledger, "take_back_expired", take_back_by_wall_clock)


BUGS = (
    Bug("what waits is not handed back at a pause", _not_handed_back),
    Bug("a paused queue is claimed from", _claimed_though_paused),
    Bug("a dismissed worker takes another job", _stays),
    Bug("a drained queue takes jobs on", _open_door),
    Bug("a drain overlooks what waits", _overlooked),
    Bug("a cancelled job is tried again", _cancelled_and_retried),
    Bug("a cancel stops another run", _any_run_will_do),
    Bug("a timeout is not kept", _no_timeout),
    Bug("the jobs of the dead are not taken back", _not_taken_back),
    Bug("a lease is judged by the wall clock", _wall_clock),
)
