"""One process of several on one file: it notes what it runs, and its clock can be wrong.

    python -m tests.faults.crowd FOLDER OFFSET_S WORKERS

SIGUSR1 sets its clock an hour ahead, SIGUSR2 an hour back. SIGTERM ends it in order. Each note is one line of the file `notes`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from datetime import datetime
from pathlib import Path

import cabrank
from cabrank.clock import SystemClock
from cabrank.settings import Settings

HOUR_S = 3600.0
SETTINGS = Settings(lease_s=6.0, renew_s=1.0, sweep_s=0.2, grace_s=10.0, reserve_s=0)  # a busy machine stalls for less than a lease


class WrongClock(SystemClock):
    """The machine's clocks, of which the one on the wall is wrong."""

    def __init__(self, offset_s: float) -> None:
        self.offset_s = offset_s
        self.now = lambda: time.time() + self.offset_s

    def step(self, by_s: float) -> None:
        self.offset_s += by_s


def note(folder: Path, words: str) -> None:
    file = os.open(folder / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{words} {os.getpid()}\n".encode())
    os.close(file)


def moment(at: datetime) -> tuple[float]:
    return (at.timestamp(),)


def make_app(folder: Path) -> cabrank.App:
    app = cabrank.App()

    @app.job
    async def waits(number: int, *, job: cabrank.JobContext = cabrank.context()) -> None:
        note(folder, f"began {number} {job.run}")
        while not (folder / "go").exists():
            await asyncio.sleep(0.02)
        note(folder, f"ended {number} {job.run}")

    @app.job(queue="quick")
    async def works(number: int, *, job: cabrank.JobContext = cabrank.context()) -> None:
        await asyncio.sleep(0.005)
        note(folder, f"ran {number} {job.run}")

    @app.schedule(every_s=1, missed="skip", args=moment)
    @app.job(queue="ticks")
    async def tick(at: float, *, job: cabrank.JobContext = cabrank.context()) -> None:
        note(folder, f"tick {at:.0f} {job.id}")

    return app


async def main(folder: Path, offset_s: float, workers: int) -> None:
    clock, over = WrongClock(offset_s), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, clock.step, HOUR_S)
    loop.add_signal_handler(signal.SIGUSR2, clock.step, -HOUR_S)
    loop.add_signal_handler(signal.SIGTERM, over.set)
    url = f"sqlite:///{folder}/jobs.db"
    async with cabrank.Dispatcher(make_app(folder), store=url, settings=SETTINGS, max_workers=workers, clock=clock):
        note(folder, "up 0 0")
        await over.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
