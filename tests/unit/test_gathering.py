"""A turn carries no more than it may, whatever waits for it, and nothing waits for ever."""

from __future__ import annotations

from typing import Any

import pytest

from cabrank.gathering import Batch, Gathering, Offer
from cabrank.job import Job, Settlement
from cabrank.states import Cause
from cabrank.stores.contract import TURN_BYTES, TURN_ROWS, Submission

MIB = 1024**2


def jobs(count: int, size: int = 1) -> list[Job]:
    return [Job(id=id, handler="work", queue="q", payload=b"x" * size) for id in range(1, count + 1)]


def offer(count: int, size: int = 1) -> Offer:
    return Offer(Submission(jobs=jobs(count)), lambda _: None, True, size * count, lambda: True)


def nobody() -> None: ...


def rows(batch: Batch) -> int:
    new = sum(len(offer.submission.jobs) for offer in batch.offers) + sum(map(len, batch.slice))
    return new + len(batch.settlements) + sum(map(len, batch.returned.values()))


def size(batch: Batch) -> int:
    new = sum(offer.size for offer in batch.offers) + sum(len(job.payload) for part in batch.slice for job in part)
    return new + sum(len(settlement.result or b"") for settlement in batch.settlements)


def drained(gathering: Gathering) -> list[Batch]:
    batches: list[Batch] = []
    while gathering:
        batches.append(gathering.take(room=True))
        assert rows(batches[-1]), "each takes something along"
    return batches


@pytest.fixture
def gathering() -> Gathering:
    return Gathering(nobody)


def test_what_ended_and_what_is_new_share_the_rows(gathering: Gathering) -> None:
    for id in range(TURN_ROWS + 500):
        gathering.pending.returned(id, 1)
    for _ in range(12):
        gathering.pending.add(jobs(1_000))
    for _ in range(12):
        gathering.place(offer(1_000))
    batches = drained(gathering)
    assert max(map(rows, batches)) == TURN_ROWS
    assert sum(map(rows, batches)) == TURN_ROWS + 500 + 24_000
    first = batches[0]
    assert len(first.returned[1]) >= TURN_ROWS // 2
    assert first.slice
    assert first.offers


def test_results_and_payloads_share_the_bytes(gathering: Gathering) -> None:
    for id in range(20):
        gathering.pending.settle(Settlement(id, 1, Cause.RETURNED, result=b"x" * MIB))
        gathering.pending.add(jobs(1, MIB))
        gathering.place(offer(1, MIB))
    batches = drained(gathering)
    assert max(map(size, batches)) <= TURN_BYTES
    assert sum(map(size, batches)) == 60 * MIB


@pytest.mark.parametrize("large", [offer(TURN_ROWS), offer(1, 3 * TURN_BYTES)])
def test_one_that_fills_a_turn_has_it_soon_and_what_ended_the_next(gathering: Gathering, large: Offer) -> None:
    carried: list[Any] = []
    gathering.place(large)
    for turn in range(6):
        for id in range(TURN_ROWS):
            gathering.pending.returned(turn * TURN_ROWS + id, 1)
        batch = gathering.take(room=False)
        assert rows(batch) <= TURN_ROWS
        carried.append((bool(batch.offers), sum(map(len, batch.returned.values()))))
    assert [place for place, (offers, _) in enumerate(carried) if offers] == [1], "in the turn behind the one that it did not fit into"
    assert all(ended >= TURN_ROWS // 2 for offers, ended in carried if not offers)


def test_a_result_that_is_larger_than_a_turn_is_recorded(gathering: Gathering) -> None:
    gathering.pending.settle(Settlement(1, 1, Cause.RETURNED, result=b"x" * (TURN_BYTES + 1)))
    gathering.pending.settle(Settlement(2, 1, Cause.RETURNED, result=b"x"))
    assert [len(batch.settlements) for batch in drained(gathering)] == [1, 1]
