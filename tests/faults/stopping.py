"""A process whose job waits for a file: to be stopped beyond its lease, and to come back with what the job returned.

    python -m tests.faults.stopping FOLDER

It ends when the lease was found lost, and says so in the file `lost`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import cabrank
from cabrank.events import Event, LeasesLost
from cabrank.settings import Settings

SETTINGS = Settings(lease_s=6.0, renew_s=0.5, sweep_s=0.2, reserve_s=0)  # a busy machine stalls for less than a lease


def make_app(folder: Path) -> cabrank.App:
    app = cabrank.App()

    @app.job
    async def work() -> str:
        (folder / f"began-{os.getpid()}").touch()
        while not (folder / "go").exists():
            await asyncio.sleep(0.01)
        return f"by {os.getpid()}"

    return app


async def main(folder: Path) -> None:
    lost = asyncio.Event()

    def listen(event: Event) -> None:
        if isinstance(event, LeasesLost):
            lost.set()

    async with cabrank.Dispatcher(make_app(folder), store=f"sqlite:///{folder}/jobs.db", settings=SETTINGS) as dispatcher:
        dispatcher.engine.events.subscribe(listen)
        await lost.wait()
    (folder / "lost").touch()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
