from __future__ import annotations

import asyncio
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cabrank.errors import SettingError
from cabrank.policy import (
    NO_RETRY,
    Cancelled,
    Decision,
    GiveUp,
    Interrupted,
    Late,
    Lost,
    Outcome,
    Raised,
    Retry,
    Returned,
    Snooze,
    TimedOut,
    TryAgain,
    Unreadable,
    Unrecordable,
    decide,
)
from cabrank.states import TRANSITIONS, Cause, State

OUTCOMES = st.one_of(
    st.builds(Returned, st.integers()),
    st.sampled_from([ValueError(), SystemExit(), asyncio.CancelledError(), GiveUp("no"), TryAgain(), TryAgain(after_s=5)]).map(Raised),
    st.floats(-10, 1e6).map(lambda for_s: Raised(Snooze(for_s=for_s))),
    st.builds(TimedOut, st.floats(0, 1e6)),
    st.sampled_from([Cancelled(), Interrupted(), Unreadable("no"), Unrecordable("no"), Lost(OSError()), Late()]),
)
RETRIES = st.builds(Retry, attempts=st.integers(1, 20), base_s=st.floats(0, 100), factor=st.floats(1, 10), cap_s=st.floats(0, 1e5))


@pytest.mark.parametrize(
    ("outcome", "cause", "reason"),
    [
        (Returned(3), Cause.RETURNED, ""),
        (Raised(ValueError()), Cause.RETRIED, ""),
        (Raised(SystemExit(1)), Cause.RETRIED, ""),
        (TimedOut(5), Cause.RETRIED, ""),
        (Raised(GiveUp("no account")), Cause.GAVE_UP, "gave_up"),
        (Raised(GiveUp()), Cause.GAVE_UP, "gave_up"),
        (Raised(Snooze(for_s=3)), Cause.SNOOZED, ""),
        (Cancelled(), Cause.CANCELLED, ""),
        (Interrupted(), Cause.RELEASED, ""),
        (Unreadable("x"), Cause.UNREADABLE, ""),
        (Unrecordable("x"), Cause.GAVE_UP, "unrecordable"),
        (Lost(OSError()), Cause.WORKER_LOST, "worker_lost"),
        (Late(), Cause.DROPPED, "deadline"),
    ],
)
def test_each_outcome_has_its_consequence(outcome: Outcome, cause: Cause, reason: str) -> None:
    decision = decide(outcome, Retry(), 0, Random(1))
    assert (decision.cause, decision.reason) == (cause, reason)


@pytest.mark.parametrize(
    ("outcome", "reason"), [(Raised(ValueError()), "failed"), (Raised(TryAgain()), "failed"), (TimedOut(1), "timed_out")]
)
def test_the_last_attempt_is_the_last(outcome: Outcome, reason: str) -> None:
    retry = Retry(attempts=3)
    assert [decide(outcome, retry, failures, Random(1)).cause for failures in range(3)] == [Cause.RETRIED, Cause.RETRIED, Cause.GAVE_UP]
    assert decide(outcome, NO_RETRY, 0, Random(1)) == Decision(Cause.GAVE_UP, reason=reason)


def test_a_handler_may_say_when_to_try_again() -> None:
    assert decide(Raised(TryAgain(after_s=7)), Retry(), 0, Random(1)) == Decision(Cause.RETRIED, after_s=7)
    assert decide(Raised(TryAgain(after_s=-7)), Retry(), 0, Random(1)).after_s == 0


def test_errors_named_in_unless_are_final_and_so_are_their_subclasses() -> None:
    retry = Retry(unless=(LookupError,))
    assert decide(Raised(KeyError()), retry, 0, Random(1)).cause is Cause.GAVE_UP
    assert decide(Raised(ValueError()), retry, 0, Random(1)).cause is Cause.RETRIED
    assert decide(TimedOut(1), retry, 0, Random(1)).cause is Cause.RETRIED


@given(OUTCOMES, RETRIES, st.integers(0, 30), st.integers())
def test_whatever_happens_a_running_job_can_go_there(outcome: Outcome, retry: Retry, failures: int, seed: int) -> None:
    decision = decide(outcome, retry, failures, Random(seed))
    assert (State.RUNNING, decision.cause) in TRANSITIONS
    assert decision.after_s >= 0
    assert decision.cause in {Cause.RETRIED, Cause.SNOOZED} or not decision.after_s
    assert decision.cause is not Cause.RETRIED or failures + 1 < retry.attempts


@given(RETRIES, st.integers(1, 10_000), st.integers())
def test_a_delay_stays_within_its_bounds(retry: Retry, failures: int, seed: int) -> None:
    delay_s = retry.delay_s(failures, Random(seed))
    assert 0 <= delay_s <= retry.cap_s
    assert failures > 1 or delay_s <= retry.base_s


def test_delays_grow_and_are_spread_over_the_whole_range() -> None:
    retry, rng = Retry(base_s=1, factor=3, cap_s=100), Random(1)
    for failures, longest in ((1, 1), (2, 3), (3, 9), (5, 81), (6, 100), (500, 100)):
        delays = [retry.delay_s(failures, rng) for _ in range(2_000)]
        assert math.isclose(max(delays), longest, rel_tol=0.01)
        assert math.isclose(sum(delays) / len(delays), longest / 2, rel_tol=0.1)


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"base_s": -1.0}, {"cap_s": -1.0}, {"factor": 0.5}])
def test_a_policy_that_cannot_be_meant_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        Retry(**wrong)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] -- one of several fields
