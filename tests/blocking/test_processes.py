"""`cabrank.blocking` where processes fork, are interrupted, and exit."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cabrank import blocking
from tests.blocking.programs import APP, output, start

FORKING = """
import os, sys
import apps, cabrank
from cabrank import blocking

front = blocking.Dispatcher(apps.app, store="sqlite:///jobs.db")
{before}
print(front.submit(apps.double, 1).result(), flush=True)
if os.fork() == 0:
    try:
        print("child", front.submit(apps.triple, 1).result(), flush=True)
    except cabrank.UsedAfterFork as error:
        print(error, flush=True)
    sys.exit()
os.wait()
print(front.submit(apps.double, 2).result(), flush=True)
{after}
"""


def test_what_opened_by_itself_opens_again_in_a_forked_child(tmp_path: Path) -> None:
    assert output(tmp_path, FORKING.format(before="", after="")) == ["2", "child 3", "4"]


def test_what_was_entered_is_refused_in_a_forked_child_with_the_hooks_name(tmp_path: Path) -> None:
    lines = output(tmp_path, FORKING.format(before="front.__enter__()", after="front.stop()"))
    assert (lines[0], lines[2]) == ("2", "4")
    assert "post_fork" in lines[1]


def test_what_opened_by_itself_is_closed_in_order_when_the_program_ends(tmp_path: Path) -> None:
    printed = output(
        tmp_path,
        """
        import apps
        from cabrank import blocking
        front = blocking.Dispatcher(apps.app, store="sqlite:///jobs.db")
        front.submit_many(apps.triple, range(10))
        other = blocking.Dispatcher(apps.app)
        other.submit(apps.double, 1)
        """,
    )
    assert printed == []
    assert {file.name for file in (tmp_path / "jobs.db-locks").iterdir()} <= {"next", "turn"}, "its life lock is gone"


@pytest.mark.parametrize("entered", [True, False])
def test_a_ctrl_c_ends_a_script_at_once_and_hands_back_what_runs(tmp_path: Path, *, entered: bool) -> None:
    program = """
        import apps, cabrank, sys
        from cabrank import blocking

        @apps.app.job
        async def endless() -> None:
            print("runs", flush=True)
            import asyncio
            await asyncio.Event().wait()

        with %s as front:
            front.submit(endless).result()
        """
    opened = "blocking.Dispatcher(apps.app, store='sqlite:///jobs.db')"
    with start(tmp_path, program % (opened if entered else f"__import__('contextlib').nullcontext({opened})")) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        process.send_signal(signal.SIGINT)
        if not entered:
            wait_until_it_stops(process)
            interrupt_until_it_ends(process)  # nothing told the dispatcher to hurry: another Ctrl-C does
        _, complained = process.communicate(timeout=15)
    assert process.returncode in {-signal.SIGINT, 130}, complained
    assert complained.rstrip().endswith("KeyboardInterrupt") or not entered
    assert {file.name for file in (tmp_path / "jobs.db-locks").iterdir()} <= {"next", "turn"}


def wait_until_it_stops(process: subprocess.Popen[str]) -> None:
    """Until the traceback of the first Ctrl-C has been written."""
    assert process.stderr is not None
    while "KeyboardInterrupt" not in process.stderr.readline():
        pass


def interrupt_until_it_ends(process: subprocess.Popen[str]) -> None:
    """As a person does: one that comes while Python itself shuts its threads down is lost on the dispatcher."""
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)


WEB = """
import os
import apps, cabrank
from cabrank import blocking

front = blocking.{kind}(apps.app, store="sqlite:///jobs.db")
{early}

def application(environ, start_response):
    try:
        said = f"{{os.getpid()}} {{front.submit(apps.double, 1).id}}"
    except cabrank.CabrankError as error:
        said = f"{{type(error).__name__}} {{error}}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [said.encode()]
"""


class UnixConnection(http.client.HTTPConnection):
    """One request to a socket in the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@contextmanager
def gunicorn(folder: Path, web: str, *options: str) -> Iterator[Path]:
    """gunicorn with two workers on a socket in `folder`; it must end well when it is told to."""
    (folder / "apps.py").write_text(APP, "utf-8")
    (folder / "web.py").write_text(web, "utf-8")
    (folder / "conf.py").write_text("def when_ready(server):\n    print('ready', flush=True)\n", "utf-8")
    command = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", "unix:socket", "-c", "conf.py", "--worker-tmp-dir", ".", *options, "web"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("CABRANK_")}
    with subprocess.Popen(command, cwd=folder, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n", process.communicate()[1].decode()
            yield folder / "socket"
            process.terminate()
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()


def ask(path: Path) -> str:
    connection = UnixConnection(path)
    connection.request("GET", "/")
    answer = connection.getresponse().read().decode()
    connection.close()
    return answer


def answers_of_two_workers(path: Path) -> list[str]:
    """Ask until both workers have answered."""
    answers = list[str]()
    until = time.monotonic() + 20
    while len({answer.split()[0] for answer in answers}) < 2 and time.monotonic() < until:
        answers.append(ask(path))
    return answers


@pytest.mark.parametrize("options", [["--preload"], []])
@pytest.mark.parametrize("kind", ["Intake", "Dispatcher"])
def test_workers_of_gunicorn_each_open_their_own(tmp_path: Path, options: list[str], kind: str) -> None:
    with gunicorn(tmp_path, WEB.format(kind=kind, early=""), *options) as path:
        answers = answers_of_two_workers(path)
    assert len({answer.split()[0] for answer in answers}) == 2, answers
    assert len({answer.split()[1] for answer in answers}) == len(answers)
    with blocking.Dispatcher(store=f"sqlite:///{tmp_path / 'jobs.db'}") as opened:
        assert all(opened.handle(answer.split()[1]).state() in {"waiting", "done"} for answer in answers)
    assert {file.name for file in (tmp_path / "jobs.db-locks").iterdir()} <= {"next", "turn"}, "every process left in order"


def test_what_was_entered_before_gunicorn_forked_is_refused_with_the_hooks_name(tmp_path: Path) -> None:
    with gunicorn(tmp_path, WEB.format(kind="Intake", early="front.__enter__()"), "--preload") as path:
        answer = ask(path)
    assert answer.startswith("UsedAfterFork")
    assert "post_fork" in answer
