import asyncio

import record

import cabrank

app = cabrank.App()
intake = cabrank.Intake(app, store=f"sqlite:///{record.FILE}")


@app.job(queue="noop")
async def noop(text: str) -> None:
    record.ran(text)


@app.job(queue="slow")
async def slow(number: int) -> None:
    record.note(number, record.BEGUN)
    await asyncio.sleep(record.SLOW_S)
    record.note(number)


open = intake.__aenter__
close = intake.stop


async def submit(text):
    await intake.submit(noop, text)


async def submit_slow(number):
    await intake.submit(slow, number)


async def submit_bulk(texts):
    await intake.submit_many(noop, texts)


WORKER = ["cabrank", "work", "app_cabrank.py:app", "--store", f"sqlite:///{record.FILE}", "--workers", "noop=100,slow=10"]
