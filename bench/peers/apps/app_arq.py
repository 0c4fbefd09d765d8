import asyncio

import record
from arq import create_pool
from arq.connections import RedisSettings

redis = RedisSettings(port=record.REDIS_PORT)
pool = None


async def noop(ctx, text):
    record.ran(text)


async def slow(ctx, number):
    record.note(number, record.BEGUN)
    await asyncio.sleep(record.SLOW_S)
    record.note(number)


async def open():
    global pool
    pool = await create_pool(redis)


async def submit(text):
    await pool.enqueue_job("noop", text)


async def submit_slow(number):
    await pool.enqueue_job("slow", number)


class WorkerSettings:
    functions = [noop, slow]
    redis_settings = redis
    keep_result = 0


WORKER = ["python", "-m", "arq", "app_arq.WorkerSettings"]
