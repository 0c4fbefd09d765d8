import asyncio

import record
from procrastinate import App, PsycopgConnector

app = App(connector=PsycopgConnector(conninfo=record.POSTGRES, min_size=1, max_size=20), import_paths=["app_procrastinate"])


@app.task(name="noop")
async def noop(text):
    record.ran(text)


@app.task(name="slow")
async def slow(number):
    record.note(number, record.BEGUN)
    await asyncio.sleep(record.SLOW_S)
    record.note(number)


open = app.open_async


async def prepare():
    await app.open_async()
    await app.schema_manager.apply_schema_async()
    await app.close_async()


async def submit(text):
    await noop.defer_async(text=text)


async def submit_slow(number):
    await slow.defer_async(number=number)


async def submit_bulk(texts):
    await noop.batch_defer_async(*[{"text": text} for text in texts])


WORKER = ["procrastinate", "--app", "app_procrastinate.app", "--log-level", "warning", "worker", "--concurrency", "10"]
