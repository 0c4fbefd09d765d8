"""Finished jobs that can still be asked for, kept compactly: one entry a turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from cabrank.job import Settlement


class _Entry(msgspec.Struct, frozen=True):
    at: float
    ids: Sequence[int]
    results: dict[int, Settlement]
    size: int


class Kept:
    """Bounded by age, by number and by the bytes of results. The oldest goes first."""

    def __init__(self, *, keep_s: float, jobs: int, size: int) -> None:
        self._keep_s = keep_s
        self._most_jobs = jobs
        self._most_bytes = size
        self._entries: deque[_Entry] = deque()
        self._jobs = 0
        self._bytes = 0

    def add(self, settlements: Sequence[Settlement], now: float) -> None:
        """Keep what returned in one turn. Cost: a few numbers for each job without a result."""
        results = {s.id: s for s in settlements if s.result is not None or s.value is not None}
        size = sum(len(s.result) for s in results.values() if s.result is not None)
        self._entries.append(_Entry(now, [s.id for s in settlements], results, size))
        self._jobs += len(settlements)
        self._bytes += size
        while self._entries and (
            self._jobs > self._most_jobs or self._bytes > self._most_bytes or self._entries[0].at < now - self._keep_s
        ):
            oldest = self._entries.popleft()
            self._jobs -= len(oldest.ids)
            self._bytes -= oldest.size

    def ids(self, now: float) -> Iterator[int]:
        """The jobs that are kept."""
        return (id for entry in self._entries if entry.at >= now - self._keep_s for id in entry.ids)

    def find(self, id: int, now: float) -> tuple[float, Settlement | None] | None:
        """When the job finished, and its settlement if it had a result; None if it is not kept. Cost: a look at each id kept."""
        for entry in reversed(self._entries):
            if entry.at < now - self._keep_s:
                return None
            if id in entry.ids:
                return entry.at, entry.results.get(id)
        return None
