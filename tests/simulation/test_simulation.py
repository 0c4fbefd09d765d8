"""Many seeds hold every invariant; each planted bug breaks one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.bugs import Bug
from tests.simulation.many import simulate_many
from tests.simulation.planted import BUGS, MOST_SEEDS, catch
from tests.simulation.world import simulate

SEEDS, WITHIN_S = 2000, 60.0
PAGE = Path(__file__).parents[2] / "docs" / "internals" / "simulation.md"


@pytest.mark.timeout(600)  # it ends by itself; a machine that stalls may be late
def test_no_seed_breaks_an_invariant(capsys: pytest.CaptureFixture[str]) -> None:
    many = simulate_many(range(SEEDS), within_s=WITHIN_S)
    with capsys.disabled():
        print(f" {many.summary} ", end="")
    broken = [f"{violation}\nrepeat it: python -m tests.simulation --seed {seed} --trace" for seed, violation in many.broken]
    assert not broken, "\n".join(broken)


def test_a_seed_repeats_its_run() -> None:
    assert simulate(7, tracing=True) == simulate(7, tracing=True)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Bug) -> None:
    assert catch(bug) is not None, f"no invariant was broken in {MOST_SEEDS} seeds with {bug.name}"


def test_the_page_lists_every_planted_bug() -> None:
    table = PAGE.read_text().partition("| bug ")[2]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert rows[1:] == [bug.name for bug in BUGS]
