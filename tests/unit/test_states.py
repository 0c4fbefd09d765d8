from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from cabrank.states import TRANSITIONS, UNFINISHED, Cause, State, after

ENDS = {State.DONE}


@pytest.mark.parametrize(("state", "cause"), sorted(TRANSITIONS))
def test_what_the_table_says_happens(state: State, cause: Cause) -> None:
    assert after(state, cause) is TRANSITIONS[state, cause]


@pytest.mark.parametrize(("state", "cause"), sorted(set(product(State, Cause)) - set(TRANSITIONS)))
def test_what_is_not_in_the_table_is_refused(state: State, cause: Cause) -> None:
    with pytest.raises(ValueError, match=f"a {state} job cannot be {cause}"):
        after(state, cause)


def test_every_state_but_the_first_is_reached_and_every_cause_is_used() -> None:
    assert set(TRANSITIONS.values()) == set(State)
    assert {cause for _, cause in TRANSITIONS} == set(Cause)


def test_only_a_done_job_has_ended_for_good() -> None:
    assert set(State) - {state for state, _ in TRANSITIONS} == ENDS
    assert not ENDS & UNFINISHED


def test_a_run_ends_in_a_state_for_one_cause_where_that_is_final() -> None:
    """So that a record's state says which cause led there."""
    final = [state for (before, _), state in TRANSITIONS.items() if before is State.RUNNING and state not in UNFINISHED | {State.DEAD}]
    assert len(final) == len(set(final))


def test_the_table_in_the_docs_is_the_table() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "one-job.md").read_text()
    rows = [f"| {before} | {cause} | {state} |" for (before, cause), state in TRANSITIONS.items()]
    assert "\n".join(rows) in page
