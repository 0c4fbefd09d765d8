"""The app that is killed: each payload is a job of 1 ms that writes its body into the file `DONE`, a line each."""

import asyncio
import os

import cabrank
from bench.noop_app import Document, Payload

app = cabrank.App()
done = os.open(os.environ["DONE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


@app.job
async def work(payload: Payload) -> None:
    await asyncio.sleep(0.001)
    os.write(done, f"{payload.body}\n".encode())


@app.document("/telemetry")
def telemetry(document: Document) -> cabrank.Jobs:
    return work.each(document.data)
