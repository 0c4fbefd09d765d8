"""How many workers a pool needs whose size may change: a plain decision from what was seen of its load, without clock or pool."""

from __future__ import annotations

import math
from collections import deque

import msgspec

LOOK_S = 0.5  # between two looks: a step in load is answered within two of them
SPARE = 1.25  # workers for each one that is busy on average: chance makes bursts
SMOOTHING = 0.3  # weight of the newest look at the load
SHRINK_S = 20.0  # a pool is as large as the largest need of so long: a pause between two bursts costs no new workers
READY_LIMIT = 10_000  # ready jobs that are counted at most: more do not make a pool any larger


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of one queue: at the moment `at` (monotonic) so many jobs were `ready` and `busy` ran; `ended` have since the start.

    `run_s` is how long a run takes, by those that ended lately or, where that is longer, those that run. 0: nothing is known.
    """

    at: float
    ready: int
    busy: int
    ended: int
    run_s: float


class Sizer:
    """Sizes one pool between `least` and `most` workers, so that jobs wait about `target_wait_s` at the longest.

    Needed are the workers that the arriving jobs keep busy, with some to spare, and those that start what waits already within
    `target_wait_s`. A pool grows to that at once, and shrinks to the largest need of the last `SHRINK_S` seconds.
    """

    def __init__(self, *, least: int, most: int, target_wait_s: float) -> None:
        self._least = least
        self.most = most
        self._target_wait_s = target_wait_s
        self._before: Load | None = None
        self._occupied = 0.0
        self._needs: deque[tuple[float, int]] = deque()

    def size(self, load: Load) -> int:
        """How many workers there are to be now."""
        need = max(self._least, min(self.most, self._need(load)))
        self._needs.append((load.at, need))
        while self._needs[0][0] <= load.at - SHRINK_S:
            self._needs.popleft()
        return max(need for _, need in self._needs)

    def _need(self, load: Load) -> int:
        self._occupied += SMOOTHING * (self._occupies(load) - self._occupied)
        self._before = load
        behind = load.ready * load.run_s / self._target_wait_s if load.run_s else load.ready
        return math.ceil(self._occupied * SPARE + min(load.ready, behind))  # a new worker takes a job at once: never more than wait

    def _occupies(self, load: Load) -> float:
        """How many workers the jobs that came since the last look keep busy."""
        before = self._before
        if before is None or load.at <= before.at:
            return load.busy
        came = load.ended - before.ended + load.ready - before.ready + load.busy - before.busy
        return max(float(load.busy), max(0, came) / (load.at - before.at) * load.run_s)
