"""The power is cut at random moments, in the midst of writes too: what `disk` acknowledged is there, what `process` did is whole."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from cabrank.settings import Durability
from tests.faults.cuts import Life

TURNS = 150
EVERY = 12  # writes and syncs between two cuts, at most


@pytest.mark.parametrize("seed", [1, 2])
def test_a_power_cut_loses_nothing_that_was_acknowledged_on_disk(tmp_path: Path, seed: int) -> None:
    figures = Life(tmp_path, Durability.DISK, Random(seed), EVERY).run(TURNS)
    assert figures.cuts >= 50
    assert (figures.lost, figures.undone, figures.damaged) == (0, 0, 0)


def test_a_power_cut_damages_no_file_of_durability_process_but_may_lose_the_last_moments(tmp_path: Path) -> None:
    figures = Life(tmp_path, Durability.PROCESS, Random(1), EVERY).run(TURNS)
    assert figures.cuts >= 50
    assert figures.damaged == 0
    assert figures.lost > 0, "else this disk would remember more than was synced, and the other test show nothing"
