"""Handles that were given out one after another share what is known of their jobs."""

from __future__ import annotations

import gc

from cabrank.job import Settlement
from cabrank.sheaf import RETURNED_NONE, Sheaf, Sheaves
from cabrank.states import Cause


def sheaf_of(sheaves: Sheaves[None], first: int, jobs: int) -> Sheaf[None]:
    sheaf: Sheaf[None] = Sheaf(None, None, False, first)
    sheaf.stop += jobs
    sheaves.add(sheaf)
    return sheaf


def failed(id: int) -> Settlement:
    return Settlement(id, 1, Cause.GAVE_UP)


def test_each_is_told_of_its_own_jobs_in_whatever_order_they_end() -> None:
    sheaves: Sheaves[None] = Sheaves()
    later, sooner = sheaf_of(sheaves, 20, 3), sheaf_of(sheaves, 10, 2)
    sheaves.returned([22, 11, 15, 10, 23])
    assert [sooner.outcome(id) for id in (10, 11, 12, 15)] == [RETURNED_NONE, RETURNED_NONE, None, None]
    assert [later.outcome(id) for id in (20, 21, 22, 23)] == [None, None, RETURNED_NONE, None]


def test_it_is_found_by_a_job_until_that_has_ended() -> None:
    sheaves: Sheaves[None] = Sheaves()
    sheaf = sheaf_of(sheaves, 10, 3)
    assert [sheaves.of(id) for id in (9, 10, 12, 13)] == [None, sheaf, sheaf, None]
    sheaves.returned([10])
    assert sheaves.learn(11, failed(11)) is sheaf
    assert [sheaves.of(id) for id in (10, 11, 12)] == [None, None, sheaf]
    assert sheaves.learn(11, failed(11)) is None, "it was told"


def test_an_outcome_is_handed_over_once_and_the_job_counts_as_ended() -> None:
    sheaves: Sheaves[None] = Sheaves()
    sheaf = sheaf_of(sheaves, 10, 1)
    settlement = failed(10)
    sheaves.learn(10, settlement)
    assert (sheaf.outcome(10), sheaf.outcome(10)) == (settlement, None)
    assert not sheaf.awaits(10)


def test_what_only_the_store_knows_is_not_waited_for() -> None:
    sheaves: Sheaves[None] = Sheaves()
    sheaf = sheaf_of(sheaves, 10, 2)
    assert sheaves.learn(10, None) is sheaf
    assert sheaf.outcome(10) is None
    assert sheaves.of(10) is None


def test_none_is_kept_whose_jobs_have_ended_or_whose_handles_are_dropped() -> None:
    sheaves: Sheaves[None] = Sheaves()
    over = sheaf_of(sheaves, 10, 2)
    dropped = sheaf_of(sheaves, 12, 2)
    left = sheaf_of(sheaves, 14, 2)
    sheaves.returned([10, 11])
    assert over.over
    assert sheaves.of(12) is dropped
    del dropped
    gc.collect()
    sheaves.prune()
    assert sheaves.of(10) is None
    assert (sheaves._firsts, [each() for each in sheaves._sheaves]) == ([14], [left])
    sheaves.learn(14, failed(14))
    sheaves.learn(15, failed(15))
    sheaves.prune()
    assert not sheaves
