"""Ends waits that could only end if they ended: of all workers of a pool for jobs that only this pool could run."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cabrank.engine import Engine
from cabrank.errors import StoreUnavailable, WaitsForItself
from cabrank.pool import WorkerPool
from cabrank.seats import Wait
from cabrank.staff import Staff
from cabrank.states import State
from cabrank.stores.contract import InspectedStore, JobRecord
from cabrank.upkeep import Duty, keep_up

LOOK_S = 0.25  # two looks must find the same, so whoever waits for itself is told within half a second
ELSEWHERE_S = 2.0  # where other processes share the store, one of them may run the job: an idle one would have taken it by then


class _Suspicion(msgspec.Struct, frozen=True):
    """What a look found."""

    waits: frozenset[int]
    since: float


def end_deadlocks(staff: Staff, engine: Engine) -> None:
    """Look at the pools now and then from now on."""
    deadlocks = Deadlocks(staff, engine.store)
    look = Duty(LOOK_S, lambda: deadlocks.look(engine.clock.monotonic()))
    engine.root.start(keep_up([look], engine.clock), name="deadlocks")


class Deadlocks:
    """Looks at the pools now and then."""

    def __init__(self, staff: Staff, store: InspectedStore) -> None:
        self._staff = staff
        self._store = store
        self._patience_s = ELSEWHERE_S if store.capabilities.shared else 0.0
        self._suspicions: dict[str, _Suspicion] = {}

    async def look(self, now: float) -> None:
        """Fail the waits of each pool all of whose workers wait for jobs that they alone could run. `now` is a monotonic moment."""
        found = self._staff.waiting(self._store.prefix)
        self._suspicions = {queue: suspicion for queue, suspicion in self._suspicions.items() if queue in found}
        for queue, waits in found.items():
            pool = self._staff.pools_of(queue)[0]
            try:
                records = (await self._store.find({wait.number for wait in waits})).values()
            except StoreUnavailable:
                return
            if len(records) < len({wait.number for wait in waits}) or not all(_only_here(record, pool) for record in records):
                self._suspicions.pop(queue, None)
            elif self._is_sure(queue, waits, now):
                for wait in waits:
                    wait.fail(_error(pool, wait))

    def _is_sure(self, queue: str, waits: Sequence[Wait], now: float) -> bool:
        those = frozenset(map(id, waits))
        before = self._suspicions.get(queue)
        if before is None or before.waits != those:
            self._suspicions[queue] = _Suspicion(those, now)
            return False
        return now - before.since >= self._patience_s


def _only_here(record: JobRecord, pool: WorkerPool) -> bool:
    """Whether the job has not begun, and this pool would have to begin it, as far as this process can see."""
    if record.queue != pool.queue.name:
        return False
    return record.state is State.WAITING or (record.state is State.RUNNING and record.id in pool.queue)


def _error(pool: WorkerPool, wait: Wait) -> WaitsForItself:
    queue, workers = pool.queue.name, pool.size
    return WaitsForItself(
        f"a job of queue {queue!r} waits for job {wait.prefix}-{wait.number}, which only the workers of that queue could run, and all "
        f"{workers} of them wait like this: give the jobs that are waited for a queue of their own"
    )
