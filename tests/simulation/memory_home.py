"""Jobs in memory: holders of one ledger, as processes share a file or a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from cabrank.job import Job
from cabrank.states import State
from cabrank.stores.memory import Ledger, MemoryStore, inspector
from cabrank.stores.memory.held import leases_of
from cabrank.stores.memory.rows import NEW, Run
from cabrank.stores.memory.rows import Row as Kept
from cabrank.testing import memory_lease
from tests.simulation.clock import VirtualClock
from tests.simulation.home import Row, Shown
from tests.simulation.loop import SimulatedLoop


class MemoryHome:
    """See `Home`."""

    folder = ""

    def __init__(self, loop: SimulatedLoop, seed: int) -> None:
        self.clock = VirtualClock(loop)
        self.watchers: list[Callable[[Shown], None]] = []
        self._loop = loop
        self._ledger = Ledger(self.clock, Random(seed))
        self._ledger.watchers.append(lambda _: self.look())

    @property
    def prefix(self) -> str:
        return self._ledger.prefix

    def look(self) -> None:
        ledger = self._ledger
        shown = Shown(
            rows={id: self._row(id, row) for id, row in ledger.rows()},
            cancelling=set(ledger.cancelling),
            paused=ledger.paused,
            tally=inspector.tally(ledger),
            limits=[(line.key, line.running) for line in ledger.limited],
            astray=(),
        )
        for watcher in self.watchers:
            watcher(shown)

    def _row(self, id: int, row: Kept) -> Row:
        if isinstance(row, Run):
            lease = row.lease
            job, how = lease.job, (State.RUNNING, lease.run, lease.failures, lease.crashes, row.holder)
        else:
            past = self._ledger.history.get(id, NEW)
            job, state = (row, State.WAITING) if isinstance(row, Job) else (row.job, row.state)
            how = (state, past.run, past.failures, past.crashes, 0)
        return Row(*how, job.queue, job.payload, job.limit_key)

    def running(self, id: int) -> Row | None:
        run = self._ledger.running(id)
        return None if run is None else self._row(id, run)

    def knows(self, id: int) -> bool:
        return self._ledger.find(id) is not None

    def done(self, id: int) -> int | None:
        kept = self._ledger.kept
        found = None if kept is None else kept.find(id, self.clock.now())
        return None if found is None else found.run

    def held_by(self, holder: int) -> Sequence[int] | None:
        known = self._ledger.holders.get(holder)
        return None if known is None else [lease.job.id for lease in leases_of(known)]

    def connect(self, before_close: Callable[[], None]) -> MemoryConnection:
        return MemoryConnection(VirtualClock(self._loop), self._ledger, before_close)

    async def cancel(self, id: int) -> bool:
        return await MemoryStore(self.clock, ledger=self._ledger).cancel(id)

    async def reopen(self, id: int) -> bool:
        return await MemoryStore(self.clock, ledger=self._ledger).reopen(id)

    def faults(self) -> Sequence[str]:
        return ()

    def close(self) -> None:
        pass


class MemoryConnection(MemoryStore):
    """A holder that says when it is about to be closed."""

    def __init__(self, clock: VirtualClock, ledger: Ledger, before_close: Callable[[], None]) -> None:
        super().__init__(clock, ledger=ledger)
        self.before_close = before_close
        self.expire: Callable[[float], None] | None = memory_lease(self)

    async def close(self) -> None:
        self.before_close()
        await super().close()

    def kill(self) -> None:
        """Nothing: `FaultyStore.kill` has ended its lease."""
