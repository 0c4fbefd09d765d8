"""Several processes of `crowd` on one file, and what they noted."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import cabrank
from cabrank.stores.sqlite.locks import is_held
from tests.faults.crowd import SETTINGS, make_app

ROOT = Path(__file__).parents[2]


class Note(NamedTuple):
    word: str
    what: str
    run: str
    pid: int


class Crowd:
    """Its folder and its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.app = make_app(folder)
        self.processes: list[asyncio.subprocess.Process] = []

    async def start(self, *, offset_s: float = 0.0, workers: int = 4) -> asyncio.subprocess.Process:
        """Start one more, and return when it is up."""
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.crowd", str(self.folder), str(offset_s), str(workers)), cwd=ROOT
        )
        self.processes.append(started)
        await self.until(lambda: any(note.pid == started.pid for note in self.notes("up")))
        return started

    def intake(self) -> cabrank.Intake:
        return cabrank.Intake(self.app, store=f"sqlite:///{self.folder}/jobs.db", settings=SETTINGS)

    def notes(self, word: str) -> list[Note]:
        file = self.folder / "notes"
        lines = file.read_text("ascii").splitlines() if file.exists() else []
        found = [line.split() for line in lines]
        return [Note(said, what, run, int(pid)) for said, what, run, pid in found if said == word]

    async def until(self, enough: Callable[[], bool]) -> None:
        while not await asyncio.to_thread(enough):
            await asyncio.sleep(0.02)

    async def freeze(self) -> None:
        """Stop all of them, where none is in its turn: one that is stops everybody who is not, which other tests show."""
        while True:
            await self.halt()
            if not any(is_held(self.folder / "jobs.db-locks" / lock) for lock in ("turn", "next")):
                return
            self.thaw()
            await asyncio.sleep(0.05)

    async def halt(self) -> None:
        """Stop all of them, wherever they are."""
        for process in self.processes:
            process.send_signal(signal.SIGSTOP)
        while not all(stands_still(process.pid) for process in self.processes):
            await asyncio.sleep(0.001)

    def thaw(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def crowd(folder: Path) -> AsyncGenerator[Crowd]:
    made = Crowd(folder)
    try:
        yield made
    finally:
        made.thaw()
        for process in made.processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


def stands_still(pid: int) -> bool:
    """Whether each thread of it has been stopped."""
    stats = (thread / "stat" for thread in Path(f"/proc/{pid}/task").iterdir())
    return all(stat.read_text("ascii").rsplit(")", 1)[1].split()[0] == "T" for stat in stats)
