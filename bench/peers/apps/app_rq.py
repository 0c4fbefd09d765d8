import time

import record
from redis import Redis
from rq import Queue

queue = Queue(connection=Redis.from_url(record.REDIS))


def noop(text):
    record.ran(text)


def slow(number):
    record.note(number, record.BEGUN)
    time.sleep(record.SLOW_S)
    record.note(number)


def submit(text):
    queue.enqueue(noop, text, result_ttl=0)


def submit_slow(number):
    queue.enqueue(slow, number, result_ttl=0)


def submit_bulk(texts):
    queue.enqueue_many([Queue.prepare_data(noop, (text,), result_ttl=0) for text in texts])


WORKER = ["rq", "worker", "--worker-class", "rq.SimpleWorker", "--url", record.REDIS, "--quiet"]
