import asyncio

import record
from saq import Queue

queue = Queue.from_url(record.REDIS)


async def noop(ctx, *, text):
    record.ran(text)


async def slow(ctx, *, number):
    record.note(number, record.BEGUN)
    await asyncio.sleep(record.SLOW_S)
    record.note(number)


async def open():
    await queue.connect()


async def submit(text):
    await queue.enqueue("noop", text=text, ttl=-1)


async def submit_slow(number):
    await queue.enqueue("slow", number=number, ttl=-1)


settings = {"queue": queue, "functions": [noop, slow], "concurrency": 10}
WORKER = ["python", "-m", "saq", "app_saq.settings", "--quiet"]
