"""Many seeds, on all cores of the machine, as far as they come within a time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context

import msgspec

from tests.simulation.home import Kind
from tests.simulation.world import simulate

BLOCK = 20  # seeds that a process carries out in one go: about half a second


class Many(msgspec.Struct, frozen=True):
    """What came of many runs; `broken` are the seeds that violated an invariant, each with what it was."""

    runs: int
    broken: tuple[tuple[int, str], ...]
    simulated_s: float
    acknowledged: int
    took_s: float

    @property
    def summary(self) -> str:
        """One line."""
        return (
            f"{self.runs:,} seeds, {len(self.broken)} broken; {self.simulated_s / 3600:.1f} simulated hours, "
            f"{self.acknowledged:,} acknowledged jobs, {self.took_s:.1f} s"
        )


def simulate_many(seeds: range, *, store: Kind = Kind.MEMORY, within_s: float) -> Many:
    """Carry out as many of `seeds` as can be begun within `within_s` seconds, in as many processes as there are cores."""
    began_at, cores = time.perf_counter(), os.cpu_count() or 1
    blocks = (seeds[at : at + BLOCK] for at in range(0, len(seeds), BLOCK))
    done: list[Many] = []
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as processes:
        begun = [processes.submit(_block, block, store) for block in islice(blocks, cores + 1)]
        for future in _all(begun):
            done.append(future.result())
            if time.perf_counter() - began_at < within_s:
                begun += [processes.submit(_block, block, store) for block in islice(blocks, 1)]
    return Many(
        sum(one.runs for one in done),
        tuple(each for one in done for each in one.broken),
        sum(one.simulated_s for one in done),
        sum(one.acknowledged for one in done),
        time.perf_counter() - began_at,
    )


def _all(begun: list[Future[Many]]) -> Iterator[Future[Many]]:
    """Each in its turn, those too that are begun meanwhile."""
    yield from begun


def _block(seeds: range, store: Kind) -> Many:
    outcomes = [simulate(seed, store=store) for seed in seeds]
    return Many(
        len(outcomes),
        tuple((outcome.seed, outcome.violations[0]) for outcome in outcomes if outcome.violations),
        sum(outcome.simulated_s for outcome in outcomes),
        sum(outcome.acknowledged for outcome in outcomes),
        0.0,
    )
