import asyncio

import record
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(record.REDIS)


@broker.task
async def noop(text):
    record.ran(text)


@broker.task
async def slow(number):
    record.note(number, record.BEGUN)
    await asyncio.sleep(record.SLOW_S)
    record.note(number)


open = broker.startup
submit, submit_slow = noop.kiq, slow.kiq
WORKER = ["taskiq", "worker", "app_taskiq:broker", "--workers", "2", "--log-level", "ERROR"]
