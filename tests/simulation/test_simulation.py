"""Many seeds hold every invariant; each planted bug breaks one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.bugs import Bug
from tests.simulation.home import Kind
from tests.simulation.many import simulate_many
from tests.simulation.planted import BUGS, MOST_SEEDS, catch
from tests.simulation.world import simulate

SEEDS = 2000
WITHIN_S = {Kind.MEMORY: 60.0, Kind.SQLITE: 20.0}
PAGE = Path(__file__).parents[2] / "docs" / "internals" / "simulation.md"


@pytest.mark.timeout(600)  # it ends by itself; a machine that stalls may be late
@pytest.mark.parametrize("store", Kind)
def test_no_seed_breaks_an_invariant(store: Kind, capsys: pytest.CaptureFixture[str]) -> None:
    many = simulate_many(range(SEEDS), store=store, within_s=WITHIN_S[store])
    with capsys.disabled():
        print(f" {many.summary} ", end="")
    repeat = f"repeat it: python -m tests.simulation --store {store} --trace --seed"
    broken = [f"{violation}\n{repeat} {seed}" for seed, violation in many.broken]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("store", Kind)
def test_a_seed_repeats_its_run(store: Kind) -> None:
    assert simulate(7, store=store, tracing=True) == simulate(7, store=store, tracing=True)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Bug) -> None:
    assert catch(bug) is not None, f"no invariant was broken in {MOST_SEEDS} seeds with {bug.name}"


def test_the_page_lists_every_planted_bug() -> None:
    table = PAGE.read_text().partition("| bug ")[2]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert rows[1:] == [bug.name for bug in BUGS]
