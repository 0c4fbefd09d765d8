"""Finished jobs that can still be asked for, kept compactly: one entry a turn."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from cabrank.job import Settlement


class _Entry(msgspec.Struct):
    at: float
    ids: array[int]
    results: dict[int, Settlement]
    size: int
    in_order: bool = False

    def has(self, id: int) -> bool:
        """Whether it is here. Cost: the first question sorts."""
        if not self.in_order:
            self.ids = array("q", sorted(self.ids))
            self.in_order = True
        place = bisect_left(self.ids, id)
        return place < len(self.ids) and self.ids[place] == id


class Kept:
    """Bounded by age, by number and by the bytes of results. The oldest goes first."""

    def __init__(self, *, keep_s: float, jobs: int, size: int) -> None:
        self._keep_s = keep_s
        self._most_jobs = jobs
        self._most_bytes = size
        self._entries: deque[_Entry] = deque()
        self._jobs = 0
        self._bytes = 0

    def add(self, ids: Iterable[int], settlements: Sequence[Settlement], now: float) -> None:
        """Keep what returned in one turn: `ids` of runs without a result, and settlements. Cost: 8 bytes for each of the former."""
        results = {s.id: s for s in settlements if s.result is not None or s.value is not None}
        size = sum(len(s.result) for s in results.values() if s.result is not None)
        numbers = array("q", ids)
        numbers.extend([s.id for s in settlements])
        self._entries.append(_Entry(now, numbers, results, size))
        self._jobs += len(numbers)
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
        """When the job finished, and its settlement if it had a result; None if it is not kept. Cost: a look into each turn kept."""
        for entry in reversed(self._entries):
            if entry.at < now - self._keep_s:
                return None
            if entry.has(id):
                return entry.at, entry.results.get(id)
        return None
