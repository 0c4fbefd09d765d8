"""All processes of a file stand still for longer than their leases, as when a machine is suspended, and go on where they were."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

import cabrank
from tests.faults.crowd import SETTINGS
from tests.faults.crowds import ROOT, Crowd, crowd, stands_still

JOBS = 6


@pytest.mark.timeout(120)  # leases have to run out, and processes to start
async def test_when_all_stood_still_all_go_on_and_nothing_is_run_twice(tmp_path: Path) -> None:
    async with crowd(tmp_path) as processes:
        for _ in range(3):
            await processes.start(workers=JOBS // 3)
        ids = await all_begun(processes)
        await processes.freeze()
        await asyncio.sleep(SETTINGS.lease_s + 0.5)
        processes.thaw()
        await asyncio.sleep(1.0)  # five sweeps of each: none takes anything from another
        (tmp_path / "go").touch()
        await all_done(processes, *ids)
        each_ran_once(processes)


@pytest.mark.timeout(120)  # leases have to run out, and processes to start
async def test_a_newcomer_takes_nothing_from_those_who_stood_behind_a_stopped_process(tmp_path: Path) -> None:
    """The newcomer has its first turn before any of them: how long they could not renew is nothing that it has seen itself."""
    async with crowd(tmp_path) as processes:
        for _ in range(2):
            await processes.start(workers=JOBS // 2)
        ids = await all_begun(processes)
        stopped = await stopped_in_its_turn(tmp_path)
        try:
            await asyncio.sleep(SETTINGS.lease_s + 0.5)
            await processes.halt()  # for as long as it takes the newcomer to open
        finally:
            stopped.send_signal(signal.SIGCONT)
        assert await stopped.wait() == 0
        newcomer = await processes.start()
        processes.thaw()
        async with processes.intake() as intake:
            later = await intake.submit(processes.app.handlers["works"], JOBS)
        await all_done(processes, later.id)
        await asyncio.sleep(1.0)  # five sweeps of each: none takes anything from another
        (tmp_path / "go").touch()
        await all_done(processes, *ids)
        each_ran_once(processes)
        assert newcomer.pid not in {note.pid for note in processes.notes("began")}


async def all_begun(processes: Crowd) -> list[str]:
    """Submit jobs that wait, and let each begin: their ids."""
    async with processes.intake() as intake:
        handles = [await intake.submit(processes.app.handlers["waits"], number) for number in range(JOBS)]
        await processes.until(lambda: len(processes.notes("began")) == JOBS)
    return [handle.id for handle in handles]


async def all_done(processes: Crowd, *ids: str) -> None:
    """Wait for the end of these."""
    async with processes.intake() as intake:
        for id in ids:
            while (await intake.handle(id).state()) is not cabrank.State.DONE:
                await asyncio.sleep(0.02)


async def stopped_in_its_turn(folder: Path) -> asyncio.subprocess.Process:
    """A process that holds the turn of the file and stands still."""
    words = (sys.executable, "-m", "tests.faults.held_turn", str(folder / "jobs.db"))
    process = await asyncio.create_subprocess_exec(*words, cwd=ROOT)
    while not stands_still(process.pid):
        await asyncio.sleep(0.01)
    return process


def each_ran_once(processes: Crowd) -> None:
    for word in ("began", "ended"):
        assert sorted(note.what for note in processes.notes(word)) == sorted(map(str, range(JOBS))), f"each {word} once"
    assert {note.run for note in processes.notes("began")} == {"1"}
    assert all(process.returncode is None for process in processes.processes)
