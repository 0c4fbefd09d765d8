import time

import record
from huey import SqliteHuey

huey = SqliteHuey("bench", filename=record.FILE, fsync=True, results=False)


@huey.task()
def noop(text):
    record.ran(text)


@huey.task()
def slow(number):
    record.note(number, record.BEGUN)
    time.sleep(record.SLOW_S)
    record.note(number)


submit, submit_slow = noop, slow
WORKER = ["python", "-m", "huey.bin.huey_consumer", "app_huey.huey", "-w", "2", "-k", "thread", "-q"]
