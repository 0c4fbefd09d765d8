"""How large a pool is, for loads that are played through: the decision knows neither clocks nor pools."""

from __future__ import annotations

import heapq
from random import Random

import pytest

from cabrank.sizing import LOOK_S, READY_LIMIT, Load, Sizer


class Played:
    """A queue and its workers in made-up time: jobs arrive and run for random durations, and the sizer looks every `LOOK_S`."""

    def __init__(self, sizer: Sizer, *, run_s: float, seed: int) -> None:
        self.size = 1
        self.sizes: list[tuple[float, int]] = []
        self.waits: list[tuple[float, float]] = []
        self._sizer = sizer
        self._run_s = run_s
        self._rng = Random(seed)
        self._line: list[float] = []
        self._running: list[float] = []
        self._ended = 0
        self._now = 0.0

    def play(self, until: float, rate: float) -> None:
        """Let jobs arrive at `rate` a second until a moment."""
        arrives_at, looks_at = self._now + self._rng.expovariate(rate) if rate else until, self._now
        while True:
            ends_at = self._running[0] if self._running else until
            self._now = min(arrives_at, looks_at, ends_at, until)
            if self._now >= until:
                return
            if self._now == ends_at:
                heapq.heappop(self._running)
                self._ended += 1
            elif self._now == arrives_at:
                self._line.append(self._now)
                arrives_at = self._now + self._rng.expovariate(rate)
            else:
                self._look()
                looks_at = self._now + LOOK_S
            self._start()

    def _look(self) -> None:
        load = Load(
            at=self._now,
            ready=min(READY_LIMIT, len(self._line)),
            busy=len(self._running),
            ended=self._ended,
            run_s=self._run_s if self._ended else 0.0,
        )
        self.size = self._sizer.size(load)
        self.sizes.append((self._now, self.size))

    def _start(self) -> None:
        while self._line and len(self._running) < self.size:
            self.waits.append((self._now, self._now - self._line.pop(0)))
            heapq.heappush(self._running, self._now + self._rng.expovariate(1 / self._run_s))

    def p95(self, since: float, until: float) -> float:
        waits = sorted(wait for at, wait in self.waits if since <= at < until)
        return waits[int(len(waits) * 0.95)]


STEPS = [  # run time, rate before, rate after, target
    (0.05, 2.0, 400.0, 0.5),
    (0.2, 1.0, 100.0, 0.5),
    (1.0, 0.2, 30.0, 1.0),
    (5.0, 0.1, 8.0, 2.0),
]


@pytest.mark.parametrize(("run_s", "before", "rate", "target_wait_s"), STEPS)
@pytest.mark.parametrize("seed", range(5))
def test_ten_seconds_after_a_step_in_load_p95_waiting_is_below_the_target(
    run_s: float, before: float, rate: float, target_wait_s: float, seed: int
) -> None:
    played = Played(Sizer(least=1, most=200, target_wait_s=target_wait_s), run_s=run_s, seed=seed)
    played.play(60.0, before)
    played.play(120.0, rate)
    assert played.p95(70.0, 120.0) < target_wait_s
    assert played.size <= 3 * rate * run_s + 5, "it is not much larger than it has to be"


@pytest.mark.parametrize(("run_s", "before", "rate", "target_wait_s"), STEPS)
def test_a_minute_after_the_load_has_gone_the_pool_is_small(run_s: float, before: float, rate: float, target_wait_s: float) -> None:
    played = Played(Sizer(least=2, most=200, target_wait_s=target_wait_s), run_s=run_s, seed=1)
    played.play(60.0, rate)
    assert played.size > 10
    played.play(120.0, before)
    assert played.size <= 6
    played.play(180.0, 0.0)
    assert played.size == 2


def test_a_pause_between_two_bursts_shrinks_nothing() -> None:
    sizer = Sizer(least=1, most=50, target_wait_s=1.0)
    assert sizer.size(Load(at=0.0, ready=100, busy=1, ended=0, run_s=1.0)) == 50
    assert [sizer.size(Load(at=at, ready=0, busy=0, ended=100, run_s=1.0)) for at in (5.0, 10.0, 19.5)] == [50, 50, 50]
    assert sizer.size(Load(at=60.0, ready=0, busy=0, ended=100, run_s=1.0)) == 1


def test_nothing_is_known_of_the_first_jobs_so_each_that_waits_gets_a_worker() -> None:
    assert Sizer(least=1, most=50, target_wait_s=1.0).size(Load(at=0.0, ready=7, busy=1, ended=0, run_s=0.0)) >= 7


def test_many_short_jobs_that_are_done_in_time_need_no_more_workers() -> None:
    sizer = Sizer(least=2, most=50, target_wait_s=1.0)
    assert sizer.size(Load(at=0.0, ready=500, busy=2, ended=1000, run_s=0.001)) <= 3
