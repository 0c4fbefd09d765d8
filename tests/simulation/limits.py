"""The invariants of limits, checked on the ledger after every step of it, out of its rows and the moments of their starts."""

from __future__ import annotations

from collections import defaultdict

from cabrank.policy import Limit
from cabrank.stores.memory.ledger import Ledger
from cabrank.stores.memory.rows import Run
from tests.simulation.record import Record

ROUNDING = 1e-6  # of a job


class LimitWatch:
    """Counts what runs and what has started of each key, by itself."""

    def __init__(self, ledger: Ledger, record: Record, limit: Limit) -> None:
        self._ledger = ledger
        self._record = record
        self._limit = limit
        self._runs: dict[int, int] = {}
        self._starts: dict[str, list[float]] = defaultdict(list)
        ledger.watchers.append(self.step)

    def step(self, holder: int = 0) -> None:
        """Look at every limited job that runs. Called by the ledger when it has changed."""
        running: dict[str, set[int]] = defaultdict(set)
        for id, row in self._ledger.rows():
            if isinstance(row, Run) and row.lease.job.limit_key is not None:
                key = row.lease.job.limit_key
                running[key].add(id)
                if self._runs.get(id, 0) < row.lease.run:
                    self._runs[id] = row.lease.run
                    self._started(key)
        assert self._limit.running is not None
        for key, ids in running.items():
            if len(ids) > self._limit.running:
                self._record.violated("I22", f"{sorted(ids)} of key {key!r} run at once, the limit is {self._limit.running}")
        for line in self._ledger.limited:
            if line.running != running[line.key]:
                self._record.violated("I16", f"key {line.key!r} counts {sorted(line.running)}, {sorted(running[line.key])} run")

    def _started(self, key: str) -> None:
        now, starts, limit = self._ledger.clock.monotonic(), self._starts[key], self._limit
        starts.append(now)
        assert limit.per_s is not None
        for count, since in enumerate(reversed(starts), 1):
            if count > limit.capacity + limit.per_s * (now - since) + ROUNDING:
                self._record.violated("I23", f"{count} jobs of key {key!r} started within {now - since:.3f} s, the limit is {limit}")
