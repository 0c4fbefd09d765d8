"""Processes on one file that are replaced one after another while others submit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.rolling import PROCESSES, roll


@pytest.mark.timeout(120)  # eight processes start, one after another
async def test_a_rolling_restart_under_load_loses_nothing_and_runs_nothing_twice(tmp_path: Path) -> None:
    rolled = await roll(tmp_path, before=300, per_s=500)
    assert rolled.statuses == [0] * 2 * PROCESSES
    assert (rolled.lost, rolled.repeated) == (0, 0), rolled
