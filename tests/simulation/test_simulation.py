"""Many seeds hold every invariant; each planted bug breaks one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.planted import BUGS, MOST_SEEDS, Bug, catch
from tests.simulation.world import simulate

SEEDS, BLOCK = 500, 50
PAGE = Path(__file__).parents[2] / "docs" / "internals" / "simulation.md"


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_no_seed_breaks_an_invariant(first: int) -> None:
    for seed in range(first, first + BLOCK):
        violations = simulate(seed).violations
        assert not violations, f"{violations[0]}\nrepeat it: python -m tests.simulation --seed {seed} --trace"


def test_a_seed_repeats_its_run() -> None:
    assert simulate(7, tracing=True) == simulate(7, tracing=True)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Bug) -> None:
    assert catch(bug) is not None, f"no invariant was broken in {MOST_SEEDS} seeds with {bug.name}"


def test_the_page_lists_every_planted_bug() -> None:
    table = PAGE.read_text().partition("| bug ")[2]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert rows[1:] == [bug.name for bug in BUGS]
