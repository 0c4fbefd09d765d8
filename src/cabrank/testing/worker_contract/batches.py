# ruff: noqa: S101 -- as in `WorkerContract`
"""What every worker kind promises of batches: one call, and an outcome for each of its items."""

from __future__ import annotations

import pytest

from cabrank.errors import WrongAnswer
from cabrank.policy import RETURNED_NONE, GiveUp, Outcome, Raised, Returned, Snooze, TryAgain
from cabrank.testing.worker_contract.driven import Driven
from cabrank.testing.worker_contract.functions import Below


def raised_by(outcome: Outcome) -> BaseException:
    """The error of a run that raised."""
    assert isinstance(outcome, Raised)
    return outcome.error


@pytest.mark.asyncio
class BatchContract:
    """Part of `WorkerContract`."""

    async def test_a_batch_that_went_well_is_done_for_all(self, worker: Driven) -> None:
        assert await worker.batch("packs", 1, 2, 3) == [RETURNED_NONE] * 3
        assert await worker.batch("packs", 4) == [RETURNED_NONE]
        assert await worker.outcome("adds", 1, 2) == Returned(3), "the worker goes on with other handlers"

    async def test_each_item_of_a_batch_has_what_is_said_of_it(self, worker: Driven) -> None:
        first, zero, below, later, hopeless, last = await worker.batch("packs", 1, 0, -1, -2, -3, 2)
        assert (first, last) == (RETURNED_NONE, RETURNED_NONE)
        again = raised_by(zero)
        assert isinstance(again, TryAgain)
        assert (str(again), again.after_s) == ("a zero", 1.5)
        assert (type(raised_by(below)), str(raised_by(below))) == (Below, "below 0")
        snooze = raised_by(later)
        assert isinstance(snooze, Snooze)
        assert snooze.for_s == 2.5  # noqa: PLR2004
        assert isinstance(raised_by(hopeless), GiveUp)

    async def test_an_exception_is_that_of_all_items_of_the_batch(self, worker: Driven) -> None:
        outcomes = await worker.batch("packs", 1, 13, 0)
        assert [str(raised_by(outcome)) for outcome in outcomes] == ["a 13"] * 3
        assert await worker.batch("packs", 1) == [RETURNED_NONE]

    async def test_an_answer_of_the_wrong_length_fails_all_items(self, worker: Driven) -> None:
        for outcome in await worker.batch("packs", 101, 1):
            assert isinstance(raised_by(outcome), WrongAnswer)
            assert "101 entries for 2 items" in str(raised_by(outcome))

    async def test_a_batch_knows_the_ids_of_its_items(self, worker: Driven) -> None:
        outcomes = await worker.batch("packs", 1, -4)
        assert str(raised_by(outcomes[1])) == "aaaaaaaa-1 aaaaaaaa-2"
