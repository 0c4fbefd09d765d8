"""Clocks on the wall that are wrong, and are set while the processes run: nobody takes another's job, no tick comes twice."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.faults.crowds import Crowd, crowd

MINUTES_S = 600.0
JUMP_S = 3000.0  # less than the hour, more than all else


def last_tick(crowd: Crowd) -> int:
    return max((int(note.what) for note in crowd.notes("tick")), default=0)


@pytest.mark.timeout(120)  # three processes have to start
async def test_wrong_clocks_steal_no_lease_and_no_tick_comes_twice(tmp_path: Path) -> None:
    async with crowd(tmp_path) as processes:
        steady = await processes.start(workers=2)
        await processes.start(offset_s=MINUTES_S, workers=2)
        await processes.start(offset_s=-MINUTES_S, workers=2)
        async with processes.intake() as intake:
            for number in range(6):
                await intake.submit(processes.app.handlers["waits"], number)
            await processes.until(lambda: len(processes.notes("began")) == 6)
            assert len({note.pid for note in processes.notes("began")}) == 3, "each process holds some"
            await processes.until(lambda: len(processes.notes("tick")) > 1)
            seen = last_tick(processes)
            steady.send_signal(signal.SIGUSR1)  # an hour ahead
            await processes.until(lambda: last_tick(processes) > seen + JUMP_S)
            for _ in range(2):
                steady.send_signal(signal.SIGUSR2)  # right again, and an hour behind
                await asyncio.sleep(1.2)  # six sweeps of each, and a tick by any of their clocks
        assert [note for note in processes.notes("began") if note.run != "1"] == [], "nobody took what another one runs"
        assert len(processes.notes("began")) == 6
        ids: dict[str, set[str]] = {}
        for note in processes.notes("tick"):
            ids.setdefault(note.what, set()).add(note.run)
        assert {tick: len(jobs) for tick, jobs in ids.items()} == dict.fromkeys(ids, 1)
