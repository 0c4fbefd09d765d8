"""A rolling restart: `cabrank work` on one file, several times, and under load each is told to stop and replaced by a new one."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from bisect import bisect_left
from pathlib import Path
from statistics import median

import msgspec

import cabrank
from tests.faults.rolled import ROOM, SETTINGS, app, put
from tests.server.process import Server

ROOT = Path(__file__).parents[2]
PROCESSES, WORKERS = 4, 8
WINDOW_S, STEP_S = 1.0, 0.1


class Rolled(msgspec.Struct, kw_only=True):
    """What came of it. `lost` were acknowledged and not run, `repeated` ran more than once.

    `usual_per_s` is what was run in the median second before the first was told to stop, `least_per_s` in the worst second from there
    until the last new one worked. `exits` is how long each took from the signal to its end, `starts` from there to its first words.
    """

    acknowledged: int
    lost: int
    repeated: int
    statuses: list[int]
    usual_per_s: float
    least_per_s: float
    exits_s: list[float]
    starts_s: list[float]


async def roll(folder: Path, *, before: int, per_s: float | None) -> Rolled:
    """Replace all of them, after `before` jobs and before as many more.

    `per_s` jobs are submitted in a second; None: as many as find room, so that no worker is ever idle.
    """
    load = Load(folder, per_s)
    processes = [await _started(folder) for _ in range(PROCESSES)]
    statuses, exits_s, starts_s = list[int](), list[float](), list[float]()
    try:
        async with cabrank.Intake(app, store=f"sqlite:///{folder}/jobs.db", settings=SETTINGS) as intake:
            submitting = asyncio.create_task(load.submit(intake))
            await load.ran(before)
            began = time.monotonic()
            for place, old in enumerate(processes):
                told = time.monotonic()
                old.tell(signal.SIGTERM)
                statuses.append(await old.ended())
                gone = time.monotonic()
                processes[place] = await _started(folder)
                exits_s.append(gone - told)
                starts_s.append(time.monotonic() - gone)
            over = time.monotonic()
            await load.ran(load.executed() + before)
            load.over.set()
            await submitting
            await load.ran(load.acknowledged)
        for process in processes:
            process.tell(signal.SIGTERM)
            statuses.append(await process.ended())
    finally:
        for process in processes:
            process.kill()
    numbers, moments = load.notes()
    return Rolled(
        acknowledged=load.acknowledged,
        lost=len(set(range(load.acknowledged)) - set(numbers)),
        repeated=len(numbers) - len(set(numbers)),
        statuses=statuses,
        usual_per_s=round(median(_rates(moments, moments[0] + WINDOW_S, began))),
        least_per_s=round(min(_rates(moments, began, over))),
        exits_s=[round(one, 3) for one in exits_s],
        starts_s=[round(one, 3) for one in starts_s],
    )


class Load:
    """What is submitted, and what has been run of it."""

    def __init__(self, folder: Path, per_s: float | None) -> None:
        self._file = folder / "executed"
        self._per_s = per_s
        self.acknowledged = 0
        self.over = asyncio.Event()

    async def submit(self, intake: cabrank.Intake) -> None:
        """Submit numbers from 0 on, until `over` is set."""
        began = time.monotonic()
        while not self.over.is_set():
            many = ROOM // 10 if self._per_s is None else int((time.monotonic() - began) * self._per_s) - self.acknowledged
            await intake.submit_many(put, range(self.acknowledged, self.acknowledged + many))
            self.acknowledged += many
            if self._per_s is not None:
                await asyncio.sleep(0.01)  # the load is one over time

    async def ran(self, jobs: int) -> None:
        """Return when so many have been run."""
        while self.executed() < jobs:
            await asyncio.sleep(0.02)

    def executed(self) -> int:
        """How many have been run."""
        return self._file.read_bytes().count(b"\n") if self._file.exists() else 0

    def notes(self) -> tuple[list[int], list[float]]:
        """The numbers of what was run, and the moments in their order."""
        pairs = [line.split() for line in self._file.read_text("ascii").splitlines()]
        return [int(number) for number, _ in pairs], sorted(float(moment) for _, moment in pairs)


async def _started(folder: Path) -> Server:
    command = (sys.executable, "-m", "cabrank", "work", "tests/faults/rolled.py:app", "--store", f"sqlite:///{folder}/jobs.db")
    process = await asyncio.create_subprocess_exec(
        *(*command, "--workers", str(WORKERS)),
        cwd=ROOT,
        env=os.environ | {"ROLLED": str(folder / "executed")},
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    started = Server(process)
    await started.logged(b"stop with")
    return started


def _rates(moments: list[float], begin: float, end: float) -> list[float]:
    """Jobs per second in each window from `begin` to `end`."""
    steps = max(1, int((end - WINDOW_S - begin) / STEP_S))
    starts = [begin + STEP_S * step for step in range(steps)]
    return [(bisect_left(moments, start + WINDOW_S) - bisect_left(moments, start)) / WINDOW_S for start in starts]
