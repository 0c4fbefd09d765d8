"""The normal case on one file: four web workers submit, `cabrank work` works, and people look at it, all at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from cabrank import blocking
from tests.blocking.test_processes import WEB, ask, gunicorn

STORE = ("--store", "sqlite:///jobs.db")
AT_ONCE = 8
REQUESTS = 160


def cabrank(folder: Path, *words: str) -> list[str]:
    """What a command prints, line by line; it must end well."""
    ended = subprocess.run([sys.executable, "-m", "cabrank", *words, *STORE], cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


@contextmanager
def working(folder: Path) -> Iterator[None]:
    """`cabrank work` on the file, ready; it must end well when it is told to."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CABRANK_")}
    command = [sys.executable, "-m", "cabrank", "work", "apps.py:app", *STORE]
    with subprocess.Popen(command, cwd=folder, env=own, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert any("stop with" in line for line in process.stderr), "it ended before it was ready"
            yield
            process.terminate()
            _, complained = process.communicate(timeout=20)
            assert process.returncode == 0, complained
            assert "locked" not in complained
        finally:
            process.kill()


@pytest.mark.timeout(120)  # seven processes, each of which imports and opens
@pytest.mark.parametrize("kind", ["Intake", "Dispatcher"])
def test_four_web_workers_beside_cabrank_work_and_the_command_line(tmp_path: Path, kind: str) -> None:
    with gunicorn(tmp_path, WEB.format(kind=kind, early=""), "-w", "4") as path, working(tmp_path):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = pool.map(ask, [path] * REQUESTS)
            assert {json.loads(line)["queue"] for line in cabrank(tmp_path, "queues", "list", "--json")} == {"async", "thread"}
            assert cabrank(tmp_path, "jobs", "list", "--state", "dead", "--json") == []
            cabrank(tmp_path, "store", "check")
            answers = list(asked)
        while len({answer.split()[0] for answer in answers}) < 4:  # one of the four had no turn yet
            answers.append(ask(path))
        assert all(answer.split()[0].isdecimal() for answer in answers), answers
        ids = [answer.split()[1] for answer in answers]
        assert len(set(ids)) == len(ids)
        cabrank(tmp_path, "queues", "drain", "async")
        with blocking.Dispatcher(store=f"sqlite:///{tmp_path / 'jobs.db'}") as opened:
            assert {opened.handle(id).state() for id in ids} == {"done"}
