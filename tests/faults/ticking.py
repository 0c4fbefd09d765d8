"""A program with a schedule: it notes each tick that it runs, with the job's id, in a file. Arguments: store, file."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import datetime

import cabrank

app = cabrank.App()


def moment(at: datetime) -> tuple[float]:
    return (at.timestamp(),)


@app.schedule(every_s=1, missed="all", args=moment)
@app.job
async def note(tick: float, *, job: cabrank.JobContext = cabrank.context()) -> None:
    line = f"{tick:.0f} {job.id} {os.getpid()}\n".encode()
    file = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line)
    os.close(file)


async def main() -> None:
    async with cabrank.Dispatcher(app, store=sys.argv[1]):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
