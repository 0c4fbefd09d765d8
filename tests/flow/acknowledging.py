"""A program that submits numbers and runs them, on one SQLite file, until it is killed: the child of `test_kill`.

    python -m tests.flow.acknowledging FOLDER one|batch FIRST

`batch`: many numbers are run by one call. It writes each number to `acknowledged` when its submit has returned, and to `executed` when
its job runs. Without FIRST it submits nothing, runs what is left and ends.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

import cabrank

SUBMITTERS = 16


async def main(folder: Path, way: str, first: int | None) -> None:
    app = cabrank.App()
    executed = (folder / "executed").open("ab", buffering=0)
    acknowledged = (folder / "acknowledged").open("ab", buffering=0)

    @app.job
    async def put(number: int) -> None:
        await asyncio.sleep(0.001)
        executed.write(b"%d\n" % number)

    @app.job(batch=cabrank.Batch(jobs=16, wait_s=0.002))
    async def put_together(numbers: list[int]) -> None:
        await asyncio.sleep(0.001)
        executed.write(b"".join(b"%d\n" % number for number in numbers))

    async def submit(dispatcher: cabrank.Dispatcher, numbers: itertools.count[int]) -> None:
        for number in numbers:
            await (dispatcher.submit(put, number) if way == "one" else dispatcher.submit(put_together, number))
            acknowledged.write(b"%d\n" % number)

    settings = cabrank.Settings(max_crashes=1_000_000)  # these jobs do not crash their processes, and are not to be given up for it
    async with cabrank.Dispatcher(app, store=f"sqlite:///{folder}/jobs.db", settings=settings) as dispatcher, asyncio.TaskGroup() as group:
        sys.stdout.write("up\n")
        sys.stdout.flush()
        if first is None:
            await dispatcher.join()
        else:
            numbers = itertools.count(first)
            for _ in range(SUBMITTERS):
                group.create_task(submit(dispatcher, numbers))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None))
