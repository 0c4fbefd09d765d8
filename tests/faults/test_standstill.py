"""All processes of a file stand still for longer than their leases, as when a machine is suspended, and go on where they were."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import cabrank
from tests.faults.crowd import SETTINGS
from tests.faults.crowds import crowd

JOBS = 6


@pytest.mark.timeout(120)  # leases have to run out, and processes to start
async def test_when_all_stood_still_all_go_on_and_nothing_is_run_twice(tmp_path: Path) -> None:
    async with crowd(tmp_path) as processes:
        for _ in range(3):
            await processes.start(workers=JOBS // 3)
        async with processes.intake() as intake:
            handles = [await intake.submit(processes.app.handlers["waits"], number) for number in range(JOBS)]
            await processes.until(lambda: len(processes.notes("began")) == JOBS)
        await processes.freeze()
        await asyncio.sleep(SETTINGS.lease_s + 0.5)
        processes.thaw()
        await asyncio.sleep(1.0)  # five sweeps of each: none takes anything from another
        (tmp_path / "go").touch()
        async with processes.intake() as intake:
            for handle in handles:
                while (await intake.handle(handle.id).state()) is not cabrank.State.DONE:
                    await asyncio.sleep(0.02)
        for word in ("began", "ended"):
            assert sorted(note.what for note in processes.notes(word)) == sorted(map(str, range(JOBS))), f"each {word} once"
        assert {note.run for note in processes.notes("began")} == {"1"}
        assert all(process.returncode is None for process in processes.processes)
