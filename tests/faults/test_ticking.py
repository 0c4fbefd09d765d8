"""Real processes on one file, one of them killed: each tick of their schedule makes one job."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("ticking.py")


class Notes:
    def __init__(self, folder: Path) -> None:
        self.store = f"sqlite:///{folder}/jobs.db"
        self.file = folder / "ticks"

    def ids(self) -> dict[int, set[str]]:
        """The jobs of each tick."""
        lines = self.file.read_text(encoding="ascii").splitlines() if self.file.exists() else []
        found: dict[int, set[str]] = {}
        for tick, id, _ in map(str.split, lines):
            found.setdefault(int(tick), set()).add(id)
        return found

    def wait(self, enough: Callable[[dict[int, set[str]]], bool]) -> dict[int, set[str]]:
        ends_at = time.monotonic() + 100
        while not enough(found := self.ids()):
            assert time.monotonic() < ends_at, found
            time.sleep(0.05)
        return found

    @contextmanager
    def process(self) -> Iterator[subprocess.Popen[bytes]]:
        started = subprocess.Popen([sys.executable, PROGRAM, self.store, self.file])
        try:
            yield started
        finally:
            started.kill()
            started.wait()


@pytest.mark.timeout(330)
def test_each_tick_makes_one_job_though_a_process_is_killed(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    with notes.process():
        with notes.process() as killed:
            notes.wait(lambda found: len(found) >= 2)
            killed.kill()
        before = max(notes.ids())
        notes.wait(lambda found: max(found) >= before + 2)
    time.sleep(1.1)  # nobody is there: this is a tick that is missed
    with notes.process():
        before = max(notes.ids())
        found = notes.wait(lambda found: max(found) >= before + 4 and len(found) == max(found) - min(found) + 1)
    assert {tick: len(ids) for tick, ids in found.items()} == dict.fromkeys(range(min(found), max(found) + 1), 1)
