"""A program that runs limited jobs of one SQLite file until none is left, or until it is killed: the child of `test_limits`.

    python -m tests.flow.limited FOLDER WORKERS JOBS

It submits JOBS jobs for each key and says `up`. Each run writes a line to `runs`: its process, key, number and the moments of start
and end on the machine's monotonic clock; a line without an end is written at the start.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import msgspec

import cabrank

KEYS = ("a", "b")
RUNNING = 3
RUN_S = 0.005


class Call(msgspec.Struct):
    key: str
    number: int


async def main(folder: Path, workers: int, jobs: int) -> None:
    app = cabrank.App()
    runs = (folder / "runs").open("ab", buffering=0)

    @app.job(limit=cabrank.Limit(running=RUNNING, key=lambda call: call.key))
    async def call(call: Call) -> None:
        began_at = time.monotonic()
        runs.write(b"%d %s %d %.6f\n" % (os.getpid(), call.key.encode(), call.number, began_at))
        await asyncio.sleep(RUN_S)
        runs.write(b"%d %s %d %.6f %.6f\n" % (os.getpid(), call.key.encode(), call.number, began_at, time.monotonic()))

    async with cabrank.Dispatcher(app, store=f"sqlite:///{folder}/jobs.db", max_workers=workers) as dispatcher:
        await dispatcher.submit_many(call, [Call(key, number) for number in range(jobs) for key in KEYS])
        sys.stdout.write("up\n")
        sys.stdout.flush()
        await dispatcher.join()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
