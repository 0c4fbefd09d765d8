"""A program that submits numbers and runs them, on one SQLite file, until it is killed: the child of `test_kill`.

    python -m tests.flow.acknowledging FOLDER FIRST

It writes each number to `acknowledged` when its submit has returned, and to `executed` when its job runs. Without FIRST it
submits nothing, runs what is left and ends.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import cabrank

SUBMITTERS = 16

Put = cabrank.Handler[[int], Coroutine[Any, Any, None]]


def build(folder: Path) -> tuple[cabrank.App, Put]:
    executed = (folder / "executed").open("ab", buffering=0)
    app = cabrank.App()

    @app.job
    async def put(number: int) -> None:
        await asyncio.sleep(0.001)
        executed.write(b"%d\n" % number)

    return app, put


async def submit(dispatcher: cabrank.Dispatcher, put: Put, folder: Path, first: int) -> None:
    acknowledged = (folder / "acknowledged").open("ab", buffering=0)
    numbers = itertools.count(first)

    async def one_after_another() -> None:
        for number in numbers:
            await dispatcher.submit(put, number)
            acknowledged.write(b"%d\n" % number)

    async with asyncio.TaskGroup() as group:
        for _ in range(SUBMITTERS):
            group.create_task(one_after_another())


async def main(folder: Path, first: int | None) -> None:
    app, put = build(folder)
    async with cabrank.Dispatcher(app, store=f"sqlite:///{folder}/jobs.db") as dispatcher:
        sys.stdout.write("up\n")
        sys.stdout.flush()
        if first is None:
            await dispatcher.join()
        else:
            await submit(dispatcher, put, folder, first)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None))
