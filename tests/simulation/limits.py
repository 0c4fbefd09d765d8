"""The invariants of limits, checked after every change, out of the rows and the moments of their starts."""

from __future__ import annotations

from collections import defaultdict

from cabrank.policy import Limit
from cabrank.states import State
from tests.simulation.home import Home, Shown
from tests.simulation.record import Record

ROUNDING = 1e-6  # of a job


class LimitWatch:
    """Counts what runs and what has started of each key, by itself."""

    def __init__(self, ledger: Home, record: Record, limit: Limit) -> None:
        self._ledger = ledger
        self._record = record
        self._limit = limit
        self._runs: dict[int, int] = {}
        self._starts: dict[str, list[float]] = defaultdict(list)
        ledger.watchers.append(self.step)

    def step(self, shown: Shown) -> None:
        """Look at every limited job that runs. Called when something has changed."""
        running: dict[str, set[int]] = defaultdict(set)
        for id, row in shown.rows.items():
            if row.state is State.RUNNING and row.limit_key is not None:
                running[row.limit_key].add(id)
                if self._runs.get(id, 0) < row.run:
                    self._runs[id] = row.run
                    self._started(row.limit_key)
        assert self._limit.running is not None
        for key, ids in running.items():
            if len(ids) > self._limit.running:
                self._record.violated("I22", f"{sorted(ids)} of key {key!r} run at once, the limit is {self._limit.running}")
        for key, counted in shown.limits:
            if counted != running[key]:
                self._record.violated("I16", f"key {key!r} counts {sorted(counted)}, {sorted(running[key])} run")

    def _started(self, key: str) -> None:
        now, starts, limit = self._ledger.clock.monotonic(), self._starts[key], self._limit
        starts.append(now)
        assert limit.per_s is not None
        for count, since in enumerate(reversed(starts), 1):
            if count > limit.capacity + limit.per_s * (now - since) + ROUNDING:
                self._record.violated("I23", f"{count} jobs of key {key!r} started within {now - since:.3f} s, the limit is {limit}")
