"""What the processes of a rolling restart run: each job notes its number and the moment, in the file that `ROLLED` names."""

from __future__ import annotations

import asyncio
import os
import time

import cabrank
from cabrank.settings import Settings

JOB_S = 0.01
ROOM = 500  # jobs that wait: who submits faster than they are run is held back by this

SETTINGS = Settings(max_queue=ROOM)

app = cabrank.App()


@app.job
async def put(number: int) -> None:
    await asyncio.sleep(JOB_S)
    file = os.open(os.environ["ROLLED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{number} {time.monotonic()}\n".encode("ascii"))
    os.close(file)
