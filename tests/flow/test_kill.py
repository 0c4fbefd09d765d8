"""kill -9 at random moments, in real processes on a real file: what was acknowledged is executed."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.flow.killing import kill_at_random

KILLS = 25


@pytest.mark.timeout(300)  # 26 processes, each of which imports, opens and works
@pytest.mark.parametrize("way", ["one", "batch"])
@pytest.mark.parametrize("seed", [1])
def test_nothing_that_was_acknowledged_is_lost_by_kills(seed: int, way: str, tmp_path: Path) -> None:
    killed = kill_at_random(tmp_path, way, KILLS, Random(seed))
    assert killed.acknowledged > KILLS, "they lived long enough to do something"
    assert killed.lost == 0
    assert {file.name for file in (tmp_path / "jobs.db-locks").iterdir()} == {"next", "turn"}, "each that died was cleared away"
