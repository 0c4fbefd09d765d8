"""A process forks while it uses a file, and parent and children go on: nothing that was acknowledged is lost, and the file stays whole."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import cabrank
from cabrank import blocking
from tests.blocking.programs import output
from tests.blocking.test_processes import answers_of_two_workers, ask, gunicorn

FORKS = 15  # in `CROWD`

CROWD = """
import os, threading
import apps, cabrank
from cabrank import blocking

front = blocking.Intake(apps.app, store="sqlite:///jobs.db")
over = threading.Event()

def submits(name, most):
    with open(f"acked-{name}", "w") as acked:
        for number in range(most):
            if over.is_set():
                return
            acked.write(front.submit(apps.double, number).id + "\\n")
            acked.flush()

def child(number, parent):
    submits(f"child-{number}", 10)
    if number % 5 == 0:
        os.read(parent, 1)  # outlive the parent, which then closes the file
        submits(f"orphan-{number}", 10)
    front.stop()

if __name__ == "__main__":
    threads = [threading.Thread(target=submits, args=(f"parent-{n}", 1_000_000)) for n in range(3)]
    for thread in threads:
        thread.start()
    reads, writes = os.pipe()
    children = []
    for number in range(15):
        pid = os.fork()
        if pid == 0:
            try:
                os.close(writes)
                child(number, reads)
            except BaseException as error:
                print("child", number, type(error).__name__, error, flush=True)
            os._exit(0)
        children.append(pid)
    over.set()
    for thread in threads:
        thread.join()
    front.stop()
    os.close(writes)
    for pid in children:
        os.waitpid(pid, 0)
    print("end")
"""


def acked(folder: Path) -> list[str]:
    return [line for file in folder.glob("acked-*") for line in file.read_text().splitlines()]


def check_file(path: Path, ids: list[str]) -> None:
    """The file is whole, and has each of these jobs."""
    assert len(set(ids)) == len(ids), "no id was given twice"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
    with blocking.Intake(store=f"sqlite:///{path}") as intake:
        assert {intake.handle(id).state() for id in ids} == {cabrank.State.WAITING}


@pytest.mark.timeout(120)
def test_nothing_that_was_acknowledged_is_lost_when_a_busy_process_forks(tmp_path: Path) -> None:
    assert output(tmp_path, CROWD) == ["end"]
    ids = acked(tmp_path)
    assert len(list(tmp_path.glob("acked-orphan-*"))) == FORKS // 5
    assert len(ids) > FORKS * 10
    check_file(tmp_path / "jobs.db", ids)


UNTOLD = """
import asyncio, concurrent.futures.thread, logging, os, random, sys

os.register_at_fork = lambda **_: None  # none of cabrank's is told, as where uWSGI forks
import apps, cabrank
from cabrank import blocking

front = blocking.Intake(apps.app, store="sqlite:///jobs.db")
print(front.submit(apps.double, 1).id, flush=True)
pid = os.fork()
if pid == 0:
    for store in ("jobs.db", "other.db"):
        try:
            print(blocking.Intake(apps.app, store=f"sqlite:///{store}").submit(apps.double, 1).id, flush=True)
        except cabrank.UsedAfterFork as error:
            print("refused", error, flush=True)
    try:
        front.submit(apps.double, 1)
    except cabrank.UsedAfterFork:
        print("refused", flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(front.submit(apps.double, 2).id, flush=True)
"""


def test_a_child_that_was_forked_without_python_knowing_is_refused_the_file_and_told_of_the_hook(tmp_path: Path) -> None:
    before, refused, other, front, after = output(tmp_path, UNTOLD)
    assert refused.startswith("refused jobs.db was open")
    assert "postfork" in refused
    assert not other.startswith("refused"), "another file is no matter"
    assert front == "refused"
    check_file(tmp_path / "jobs.db", [before, after])


STUCK = """
import fcntl, os
import apps, cabrank
from cabrank import blocking
from cabrank.stores.sqlite import forks

forks.WAIT_S = 0.2
front = blocking.Intake(apps.app, store="sqlite:///jobs.db")
front.submit(apps.double, 1)
turn = os.open("jobs.db-locks/turn", os.O_RDWR)
fcntl.flock(turn, fcntl.LOCK_EX)  # as a stopped process holds it
import threading
waiting = threading.Thread(target=front.submit, args=(apps.double, 2))
waiting.start()
while not front._front.opened().made.engine.store._ledger.waits_for_another:
    pass
pid = os.fork()
if pid == 0:
    try:
        front.submit(apps.double, 3)
    except cabrank.UsedAfterFork as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
fcntl.flock(turn, fcntl.LOCK_UN)
waiting.join()
print(front.submit(apps.double, 4).id)
"""


def test_a_fork_does_not_wait_for_ever_for_a_turn_and_the_child_is_refused_the_file_then(tmp_path: Path) -> None:
    refused, after = output(tmp_path, STUCK)
    assert "could not be closed before" in refused
    assert after


OPENS = """
import os, threading, time
from pathlib import Path
from cabrank.stores.sqlite.writer import Writer

def doer(name, rest):
    writer = Writer(name, between=lambda: None, every_s=60, now=time.monotonic)
    return writer, lambda: writer.own(Path(name), rest)

closed, owned = [], threading.Event()
second, own_second = doer("second", lambda: closed.append("second"))
opening = threading.Thread(target=lambda: (own_second(), owned.set()))

def rest():
    closed.append("first")
    if not opening.ident:
        opening.start()  # when it was settled whom the fork waits for
        owned.wait(0.3)

first, own_first = doer("first", rest)
own_first()
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        print(*closed, owned.is_set(), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    owned.wait()
    closed.clear()
for writer in (first, second):
    writer.stop()
    writer.join()
"""


def test_what_would_be_opened_while_a_process_forks_waits_until_it_has(tmp_path: Path) -> None:
    first, second = output(tmp_path, OPENS)
    assert first == "first False", "it was not open when the process forked"
    assert set(second.split()) == {"first", "second", "True"}, "the next fork knows of it"


MASTER = """
import os, threading
import apps, cabrank
from cabrank import blocking

front = blocking.Intake(apps.app, store="sqlite:///jobs.db")

def submits():
    with open("acked-master", "w") as acked:
        while True:
            acked.write(front.submit(apps.double, 1).id + "\\n")
            acked.flush()

threading.Thread(target=submits, daemon=True).start()

def application(environ, start_response):
    said = f"{os.getpid()} {front.submit(apps.double, 1).id}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [said.encode()]
"""


def test_workers_that_gunicorn_forks_while_its_master_submits_lose_nothing(tmp_path: Path) -> None:
    with gunicorn(tmp_path, MASTER, "--preload", "--max-requests", "1") as path:
        answers = [*answers_of_two_workers(path), *(ask(path) for _ in range(8))]
    assert len({answer.split()[0] for answer in answers}) > 4, "each worker answered once and was replaced"
    lines = (tmp_path / "acked-master").read_text().split("\n")
    check_file(tmp_path / "jobs.db", [*(answer.split()[1] for answer in answers), *lines[:-1]])
