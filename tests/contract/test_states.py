"""The table of transitions is the whole truth: what is not in it is refused."""

from __future__ import annotations

from itertools import product

import pytest

from cabrank.states import TRANSITIONS, UNFINISHED, Cause, State, after


@pytest.mark.parametrize(("state", "cause"), list(product(State, Cause)))
def test_a_job_moves_as_the_table_says_and_in_no_other_way(state: State, cause: Cause) -> None:
    if (state, cause) in TRANSITIONS:
        assert after(state, cause) is TRANSITIONS[state, cause]
    else:
        with pytest.raises(ValueError, match=f"a {state} job cannot be {cause}"):
            after(state, cause)


def test_every_state_is_reached_and_every_cause_leads_somewhere() -> None:
    assert set(TRANSITIONS.values()) | {State.WAITING} == set(State)
    assert {cause for _, cause in TRANSITIONS} == set(Cause)


def test_only_what_is_over_cannot_be_run_any_more() -> None:
    """A person may reopen it, or not: nothing else moves it."""
    for state in set(State) - UNFINISHED:
        assert {cause for left, cause in TRANSITIONS if left is state} <= {Cause.REOPENED}
