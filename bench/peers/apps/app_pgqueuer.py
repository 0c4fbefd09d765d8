import asyncio
import logging

import asyncpg
import record
from pgqueuer import AsyncpgDriver, AsyncpgPoolDriver, PgQueuer, Queries

pool = None
queries = None


async def factory():
    logging.getLogger("pgqueuer").setLevel("ERROR")
    pgq = PgQueuer(AsyncpgDriver(await asyncpg.connect(record.POSTGRES)))

    @pgq.entrypoint("noop")
    async def noop(job):
        record.ran(job.payload.decode())

    @pgq.entrypoint("slow")
    async def slow(job):
        number = int(job.payload)
        record.note(number, record.BEGUN)
        await asyncio.sleep(record.SLOW_S)
        record.note(number)

    return pgq


async def open():
    global pool, queries
    pool = await asyncpg.create_pool(record.POSTGRES, min_size=1, max_size=20)
    queries = Queries(AsyncpgPoolDriver(pool))


async def prepare():
    await open()
    await queries.install()
    await pool.close()


async def submit(text):
    await queries.enqueue("noop", text.encode())


async def submit_slow(number):
    await queries.enqueue("slow", str(number).encode())


async def submit_bulk(texts):
    await queries.enqueue(["noop"] * len(texts), [text.encode() for text in texts], [0] * len(texts))


WORKER = ["python", "app_pgqueuer.py"]


async def work():
    await (await factory()).run(batch_size=100)


if __name__ == "__main__":
    asyncio.run(work())
