import time

import record
from celery import Celery

app = Celery("app_celery", broker=record.REDIS)
app.conf.task_ignore_result = True


@app.task
def noop(text):
    record.ran(text)


@app.task
def slow(number):
    record.note(number, record.BEGUN)
    time.sleep(record.SLOW_S)
    record.note(number)


submit, submit_slow = noop.delay, slow.delay
WORKER = ["python", "-m", "celery", "-A", "app_celery", "worker", "-P", "prefork", "-c", "2", "--loglevel", "ERROR"]
