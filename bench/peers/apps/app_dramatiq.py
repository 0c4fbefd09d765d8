import time

import dramatiq
import record
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=record.REDIS))


@dramatiq.actor
def noop(text):
    record.ran(text)


@dramatiq.actor
def slow(number):
    record.note(number, record.BEGUN)
    time.sleep(record.SLOW_S)
    record.note(number)


submit, submit_slow = noop.send, slow.send
WORKER = ["python", "-m", "dramatiq", "app_dramatiq", "--processes", "2", "--threads", "8"]
