"""A server of jobs one of which ends its whole process, beside many that do no harm: the child of `suspects`.

    python -m tests.faults.suspecting FOLDER

It runs what is in the store, notes each innocent that it has run in `ran`, and ends when nothing is left.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import cabrank
from cabrank.settings import Settings

SETTINGS = Settings(max_crashes=3)


def make_app(folder: Path) -> cabrank.App:
    app = cabrank.App()

    @app.job
    async def innocent(number: int) -> None:
        await asyncio.sleep(0)
        with (folder / "ran").open("ab", buffering=0) as ran:
            ran.write(b"%d\n" % number)

    @app.job
    async def guilty() -> None:
        await asyncio.sleep(0)
        os._exit(7)

    return app


async def main(folder: Path) -> None:
    async with cabrank.Dispatcher(make_app(folder), store=f"sqlite:///{folder}/jobs.db", settings=SETTINGS, max_workers=20) as dispatcher:
        await dispatcher.join()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
